import { render } from "@testing-library/react";
import { describe, expect, it } from "vitest";
import { cpuTime } from "@/test/cpu-time";
import { advance, type MarkdownDocument } from "./parsing/document";
import { RenderedDocument } from "./rendered";

function show(text: string, streaming = false): HTMLElement {
  return render(<RenderedDocument text={text} streaming={streaming} />).container;
}

/** The elements of an answer without their looks; ‹details open …› where it is unfolded. */
function outline(text: string, streaming = false): string {
  const words = (node: Node): string => {
    if (!(node instanceof HTMLElement)) return node.textContent ?? "";
    const content = [...node.childNodes].map(words).join("");
    const name = node.localName;
    if (["div", "p", "span"].includes(name)) return name === "p" ? `${content}¶` : content;
    return `‹${`${name}${node.hasAttribute("open") ? " open" : ""} ${content.trim()}`.trim()}›`;
  };
  return words(show(text, streaming)).replaceAll(/\s+/g, " ").trim();
}

describe("HTML that only formats words", () => {
  it.each([
    ["<kbd>Ctrl</kbd> + <KBD>C</KBD>", "‹kbd Ctrl› + ‹kbd C›¶"],
    ["H<sub>2</sub>O, 10<sup>3</sup>", "H‹sub 2›O, 10‹sup 3›¶"],
    ["<mark>*a* **b**</mark>", "‹mark ‹em a› ‹strong b››¶"],
    ["**<u>x</u>**", "‹strong ‹u x››¶"],
    ["<sub><i>n</i></sub>", "‹sub ‹i n››¶"],
    ["<ruby>漢字<rp>(</rp><rt>かんじ</rt><rp>)</rp></ruby>", "‹ruby 漢字‹rp (›‹rt かんじ›‹rp )››¶"],
    ["a<br>b<br/>c<wbr>d", "a‹br›b‹br›c‹wbr›d¶"],
    ["a\n\n<hr>\n\nb", "a¶‹hr›b¶"],
    ["- <kbd>a</kbd>", "‹ul ‹li ‹kbd a›››"],
    ["| <kbd>a</kbd> |\n|---|\n| x<sub>1</sub> |", "‹table ‹thead ‹tr ‹th ‹kbd a››››‹tbody ‹tr ‹td x‹sub 1›››››"],
    ["# <code>x</code>", "‹h2 ‹code x››"],
    ["<b><i>crossed</b></i>", "‹b <i>crossed›</i>¶"],
    ["<b><b>a</b>", "<b>‹b a›¶"],
    ["a\n\n<sub>\n*x*\n</sub>\n\nb", "a¶‹sub ‹em x››¶b¶"],
  ])("becomes its element: %s", (text, expected) => {
    expect(outline(text)).toBe(expected);
  });

  it.each([
    "List<String> and Map<K, V>",
    "vector<i> x; a<b>c",
    "<note><to>Tove</to><b>bold</b></note>",
    "<kbd>never closed",
    "never opened</kbd>",
    "`<kbd>x</kbd>`",
    "<a href='https://a.b'><b>x</b></a>",
    "<sub class='x'>2</sub>",
    "1 < b > 2",
    "<order>\n<details>\n<id>1</id>\n</details>\n</order>",
  ])("stays text where it is something else: %s", (text) => {
    const container = show(text);
    expect(container.textContent?.replaceAll("\n", " ")).toBe(text.replaceAll("`", "").replaceAll("\n", " "));
    expect(container.querySelectorAll("b, i, kbd, sub, details")).toHaveLength(0);
  });

  it("is shown as what it becomes while it is written", () => {
    expect(outline("H<sub", true)).toBe("H¶");
    expect(outline("H<sub>2", true)).toBe("H‹sub 2›¶");
    expect(outline("H<sub>2</su", true)).toBe("H‹sub 2›¶");
    expect(outline("<kbd>**a", true)).toBe("‹kbd ‹strong a››¶");
    expect(outline("**<kbd>a</kbd>", true)).toBe("‹strong ‹kbd a››¶");
  });
});

describe("what can be folded", () => {
  const FOLDED = "‹details ‹summary A›b ‹strong c›¶›d¶";

  it.each([
    ["<details>\n<summary>A</summary>\n\nb **c**\n\n</details>\n\nd", FOLDED],
    ["<details>\n<summary>A</summary>\nb **c**\n</details>\nd", FOLDED],
    ["<details><summary>A</summary>b **c**</details>\nd", FOLDED],
    ["<details><summary>A</summary>\n\nb **c**</details>\n\nd", FOLDED],
    ["<details>\n<summary>\nA\n</summary>\n\nb **c**\n</details> d", FOLDED],
    ["<DETAILS>\n  <Summary>A</Summary>\n\nb **c**\n\n</Details>\nd", FOLDED],
    [
      "<details open><summary>**A** `</summary>`</summary>b</details>",
      "‹details open ‹summary ‹strong A› ‹code </summary>››b¶›",
    ],
    ["<details>\n\nb\n\n</details>", "‹details ‹summary Details›b¶›"],
    [
      "<details><summary>A</summary>\n\n- x\n\n<details><summary>B</summary>\n\ny\n\n</details>\n\nz\n</details>",
      "‹details ‹summary A›‹ul ‹li x››‹details ‹summary B›y¶›z¶›",
    ],
    ["- x\n\n  <details><summary>A</summary>\n\n  b\n\n  </details>\n", "‹ul ‹li x¶‹details ‹summary A›b¶›››"],
    ["> <details><summary>A</summary>\n> b\n> </details>\n\nc", "‹blockquote ‹details ‹summary A›b¶››c¶"],
    [
      "<details><summary><b>A</b></summary>\n\n| a |\n|---|\n| 1 |\n</details>",
      "‹details ‹summary ‹b A››‹table ‹thead ‹tr ‹th a›››‹tbody ‹tr ‹td 1›››››",
    ],
    ["<details >\n<summary >A</summary>\n<p>x</p>\n</details >\nb", "‹details ‹summary A›<p>x</p>¶›b¶"],
    // The end may never come: what is hidden then could be all that there is.
    ["<details><summary>A</summary>\n\nb", "‹details open ‹summary A›b¶›"],
    ["<details>\n\nb", "<details>¶b¶"],
    ["a\n\n</details>\n\n<summary>x</summary>", "a¶</details>¶<summary>x</summary>¶"],
    ["<details onclick=x>\n<summary>A</summary>\n\nb", "<details onclick=x> <summary>A</summary>¶b¶"],
  ])("is read in whatever lines it stands: %j", (text, expected) => {
    expect(outline(text)).toBe(expected);
  });

  it("is folded while it is written, and neither its tags nor its words jump", () => {
    const text = "x\n\n<details>\n<summary>The **title**</summary>\n\nb **c**\n\n- d\n\n</details>\n\nend";
    const { container, rerender } = render(<RenderedDocument text="" streaming />);
    let details: Element | null = null;
    for (let end = 1; end <= text.length; end++) {
      rerender(<RenderedDocument text={text.slice(0, end)} streaming />);
      expect(container.textContent).not.toMatch(/[<>*]/);
      details ??= container.querySelector("details");
      if (details) expect(container.querySelector("details")).toBe(details);
    }
    expect(details?.hasAttribute("open")).toBe(false);
    rerender(<RenderedDocument text={text} streaming={false} />);
    expect(container.querySelector("details")).toBe(details);
    expect(container.innerHTML).toBe(show(text).innerHTML);
  });
});

describe("HTML that means harm", () => {
  const ELEMENTS =
    "script, img, iframe, object, embed, svg:not(.lucide), style, link, meta, form, base, video, audio, input, button:not(.code-block button), a";

  it.each([
    "<details open ontoggle=alert(1)>\n<summary>a</summary>\n\nb\n</details>",
    "<details><summary onclick=alert(1)>a</summary>b</details>",
    "<details><summary><img src=x onerror=alert(1)></summary><script>alert(1)</script></details>",
    "<details><summary>a</summary>\n\n<iframe srcdoc='<script>alert(1)</script>'></iframe>\n\n</details>",
    "<details open='' ontoggle='alert(1)'><summary>a</summary>b</details>",
    "<details/onclick=alert(1)>a</details>",
    "<kbd onclick=alert(1)>a</kbd> <sub style='position:fixed'>b</sub> <mark id=x>c</mark>",
    "<kbd\nonclick=alert(1)>a</kbd>",
    "<kbd><svg onload=alert(1)></kbd> <sub><script>alert(1)</script></sub>",
    "<b><details></b><summary></details></summary>",
    "<summary><details></summary></details>\n</summary>\n</details>",
    "<details>\n<summary>[x](javascript:alert(1))</summary>\n\n[y](data:text/html,x)\n</details>",
    "<sup><a href=javascript:alert(1)>x</a></sup>",
    "<ruby><rt><style>*{display:none}</style></rt></ruby>",
    "<details><summary>a</summary>\n\n```html\n</details><script>alert(1)</script>\n```\n\n</details>",
    "<q cite=javascript:alert(1)>a</q> <del cite=x>b</del>",
  ])("comes to nothing: %s", (text) => {
    for (let end = 1; end <= text.length; end += 3) show(text.slice(0, end), true);
    const container = show(text);
    expect(container.querySelectorAll(ELEMENTS)).toHaveLength(0);
    for (const element of container.querySelectorAll("*:not(.code-block *)")) {
      for (const { name } of element.attributes) expect(name).toMatch(/^(?:class|dir|open|aria-live|type|start)$/);
    }
  });

  it("does not hang the page, however it is nested", async () => {
    const took = await cpuTime(() => {
      for (const tag of [
        "<kbd>",
        "<details>\n",
        "<details><summary>a</summary>\n\n",
        "<sub></b>",
        "<b><x>",
        "</kbd>",
      ]) {
        show(tag.repeat(3000));
      }
      show(`${"<kbd>".repeat(3000)}x${"</kbd>".repeat(3000)}`);
      show(`${"<details><summary>a</summary>\n\n".repeat(600)}x\n\n${"</details>\n\n".repeat(600)}`);
      show(`${"<details>".repeat(3000)}${"</details>".repeat(3000)}`);
      let document: MarkdownDocument | null = null;
      const text = "<details><summary>a</summary>\n\n<kbd>b</kbd>\n\n</details>\n\n".repeat(60);
      for (let end = 1; end <= text.length; end += 5) document = advance(document, text.slice(0, end), true);
    });
    expect(took).toBeLessThan(30_000);
  }, 120_000);
});
