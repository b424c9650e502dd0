import { act, render, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, describe, expect, it, vi } from "vitest";
import { cpuTime } from "@/test/cpu-time";
import { loadRenderer } from "./load-renderer";
import { Markdown } from "./markdown";

afterEach(() => vi.useRealTimers());

async function show(text: string, streaming = false): Promise<HTMLElement> {
  await loadRenderer();
  const { container } = render(<Markdown text={text} streaming={streaming} />);
  return container;
}

describe("before the renderer is there", () => {
  it("shows the text as it is", () => {
    // Nothing has loaded the renderer yet in this file.
    const { container } = render(<Markdown text={"# Title\n\n<b>text</b>"} />);
    expect(container).toHaveTextContent("# Title <b>text</b>");
    expect(container.querySelector("h2")).toBeNull();
  });

  it("shows it rendered once it is", async () => {
    render(<Markdown text={"# Title\n\ntext"} />);
    expect(await screen.findByRole("heading", { level: 2, name: "Title" })).toBeInTheDocument();
  });
});

describe("Markdown", () => {
  it("has GitHub's extensions", async () => {
    const container = await show(
      "~~old~~ https://example.com/a\n\n- [x] done\n- [ ] open\n\n| a | b |\n| :- | -: |\n| 1 | 2<br>3 |\n\n5. five\n6. six",
    );
    expect(container.querySelector("del")).toHaveTextContent("old");
    expect(screen.getByRole("link", { name: "https://example.com/a" })).toHaveAttribute(
      "href",
      "https://example.com/a",
    );
    expect(screen.getByRole("checkbox", { name: "Done" })).toBeChecked();
    expect(screen.getByRole("checkbox", { name: "To do" })).not.toBeChecked();
    expect(screen.getByRole("columnheader", { name: "b" })).toHaveClass("text-right");
    expect(container.querySelector("td br")).not.toBeNull();
    expect(container.querySelector("ol")).toHaveAttribute("start", "5");
  });

  it("resolves links and footnotes", async () => {
    await show("See [docs][1] and[^a].\n\n[1]: https://example.com/ 'Title'\n[^a]: The note.");
    expect(screen.getByRole("link", { name: "docs" })).toHaveAttribute("title", "Title");
    const mark = screen.getByRole("link", { name: "Footnote 1" });
    const note = screen.getByText("The note.").closest("li");
    expect(mark.getAttribute("href")).toBe(`#${note?.id}`);
    await userEvent.click(mark);
    expect(note).toHaveFocus();
  });

  it("copies code", async () => {
    const user = userEvent.setup();
    await show("```\nconst a = 1;\n```");
    await user.click(screen.getByRole("button", { name: "Copy code" }));
    expect(await screen.findByRole("button", { name: "Copied" })).toBeInTheDocument();
    expect(await navigator.clipboard.readText()).toBe("const a = 1;");
  });

  it("colours code of a known language, and leaves other code plain", async () => {
    const container = await show("```py\nimport os\n```\n\n```nonsense\nimport os\n```");
    await waitFor(() => expect(container.querySelector(".hljs-keyword")).toHaveTextContent("import"), {
      timeout: 5000,
    });
    expect(container.querySelectorAll(".hljs-keyword")).toHaveLength(1);
    expect(screen.getByText("Python")).toBeInTheDocument();
    expect(screen.getByText("nonsense")).toBeInTheDocument();
  });

  it("colours the languages that hand parts over to others", async () => {
    const container = await show("```html\n<p>hi</p><script>const a = 1</script>\n```");
    await waitFor(
      () => expect(container.querySelector(".language-javascript, .javascript .hljs-keyword")).not.toBeNull(),
      {
        timeout: 5000,
      },
    );
  });

  it("sets formulas and leaves prices alone", async () => {
    const container = await show("It costs $5 and $10, but $x^2$ and\n\n$$\n\\frac{1}{2}\n$$\n\nand \\(y\\).");
    await waitFor(() => expect(container.querySelectorAll(".katex")).toHaveLength(3), { timeout: 5000 });
    expect(container).toHaveTextContent("It costs $5 and $10");
    expect(container.querySelectorAll(".katex-display")).toHaveLength(1);
  });

  it.each([
    ["$\\ce{2H2 + O2 -> 2H2O}$ or \\ce{SO4^2-} and \\pu{5 mol//l}", 3],
    ["\\begin{align}\na &= b \\\\\nc &= d\n\\end{align}", 1],
    ["\\begin{equation*}\nE = mc^2\n\\end{equation*}\n\n\\begin{gather}\na\\\\b\n\\end{gather}", 2],
    ["so \\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix} and \\begin{cases} 1 \\\\ 2 \\end{cases}", 2],
    ["\\begin{CD}\nA @>>> B\n\\end{CD}\n\n\\begin{alignat}{2}\na &= b\n\\end{alignat}", 2],
    ["| a | b |\n|-|-|\n| $|x|$ | $P(A|B)$ |", 2],
  ])("sets what chemists and mathematicians write: %s", async (text, count) => {
    const container = await show(text);
    await waitFor(() => expect(container.querySelectorAll(".katex")).toHaveLength(count), { timeout: 5000 });
    expect(container.querySelectorAll(".font-mono, .katex-error")).toHaveLength(0);
  });

  it("shows a formula with a mistake as its source", async () => {
    const container = await show("$x$ and $\\frac{1$ and $\\nonsense$");
    await waitFor(() => expect(container.querySelectorAll(".katex")).toHaveLength(1), { timeout: 5000 });
    expect(container).toHaveTextContent("\\frac{1 and \\nonsense");
  });
});

describe("an answer that means harm", () => {
  const ELEMENTS = "script, img, iframe, object, embed, svg:not(.lucide), style, link, meta, form, base, video, audio";

  function expectHarmless(container: HTMLElement): void {
    expect(container.querySelectorAll(ELEMENTS)).toHaveLength(0);
    for (const element of container.querySelectorAll("*")) {
      for (const { name, value } of element.attributes) {
        expect(name).not.toMatch(/^on|^srcdoc$|^formaction$|^xlink/);
        expect(value).not.toMatch(/(?:java|vb)script|data:/i);
        if (name === "style") expect(element.closest(".katex")).not.toBeNull();
        if (name === "href") expect(value).toMatch(/^(?:https?:\/\/|mailto:)/);
      }
    }
  }

  it.each([
    '<img src=x onerror="alert(1)">',
    "<script>alert(1)</script>",
    "text <script>alert(1)</script> text",
    "<svg onload=alert(1)><a xlink:href='x'>x</a></svg>",
    '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
    "<style>body{display:none}</style>",
    '<a href="javascript:alert(1)" onclick="alert(1)">x</a>',
    "<div style='position:fixed;inset:0'>over all</div>",
    "<details open ontoggle=alert(1)>",
    "<form action=/auth/logout><button>x</button></form>",
    "| a |\n| --- |\n| <img src=x onerror=alert(1)> |",
    "- <img src=x onerror=alert(1)>\n\n> <script>alert(1)</script>",
  ])("has its HTML shown as text: %s", async (text) => {
    const container = await show(text);
    expectHarmless(container);
    expect(container.textContent).toMatch(/</);
  });

  it.each([
    "[click](javascript:alert(1))",
    "[click](JaVaScRiPt:alert(1))",
    "[click](java\tscript:alert(1))",
    "[click](javascript&#58;alert(1))",
    "[click](&#106;avascript:alert(1))",
    "[click](&#x09;javascript:alert(1))",
    "[click](\u0001javascript:alert(1))",
    "[click](<java&NewLine;script:alert(1)>)",
    "[click](vbscript:msgbox(1))",
    "[click](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[click](file:///etc/passwd)",
    "[click](blob:https://example.com/1)",
    "[click](intent://x#Intent;end)",
    "[click](//evil.example/)",
    "[click](/auth/logout)",
    "[click](?x=1)",
    "[click](#top)",
    "[click](https://bank.example@evil.example/)",
    "[click][x]\n\n[x]: javascript:alert(1)",
    "[click]\n\n[click]: <data:text/html,x>",
    "![click](javascript:alert(1))",
    "![click](data:image/svg+xml;base64,PHN2Zy8+)",
    "[![click](data:image/png;base64,AA==)](javascript:alert(1))",
    "[click](<javascript:alert(1)> 'title')",
    "<javascript:alert(1)> click",
  ])("has no link to where none may lead: %s", async (text) => {
    const container = await show(text);
    expectHarmless(container);
    expect(container.querySelectorAll("a")).toHaveLength(0);
    expect(container).toHaveTextContent(/click/);
  });

  it("links out safely", async () => {
    const container = await show(
      "[a](https://example.com/x) <b@example.com> www.example.com [c](mailto:c@example.com)",
    );
    expectHarmless(container);
    const links = screen.getAllByRole("link");
    expect(links).toHaveLength(4);
    for (const link of links) {
      expect(link).toHaveAttribute("target", "_blank");
      expect(link).toHaveAttribute("rel", "noopener noreferrer nofollow");
    }
  });

  it("loads no images", async () => {
    const container = await show(
      "![A cat](https://example.com/cat.png) and [![badge](https://b.example/x.svg)](https://c.example)",
    );
    expectHarmless(container);
    expect(screen.getByRole("link", { name: "A cat" })).toHaveAttribute("href", "https://example.com/cat.png");
    expect(screen.getByRole("link", { name: "badge" })).toHaveAttribute("href", "https://c.example/");
  });

  it("has no links within links", async () => {
    const container = await show(
      "[a [b](https://b.example) ![c](https://c.example)](https://a.example) [x https://y.example](https://z.example)",
    );
    expectHarmless(container);
    expect(container.querySelectorAll("a a")).toHaveLength(0);
  });

  it.each([
    "$\\href{javascript:alert(1)}{x}$",
    "$\\url{javascript:alert(1)}$",
    "$\\includegraphics{https://evil.example/x.png}$",
    "$\\htmlStyle{position:fixed}{x}$",
    "$\\htmlData{x=1}{x} \\htmlClass{fixed}{y} \\htmlId{z}{z}$",
    "$\\text{<img src=x onerror=alert(1)>}$",
    "$\\rule{99999em}{99999em}$",
  ])("gets nothing through a formula: %s", async (text) => {
    const container = await show(text);
    // Its source stands there until the typesetter has come, and stays where that sets nothing.
    await act(() => vi.dynamicImportSettled());
    expect(container.querySelector(".katex, .font-mono")).not.toBeNull();
    expect(container.querySelectorAll("a, img, script, [id='z'], .fixed")).toHaveLength(0);
    for (const element of container.querySelectorAll<HTMLElement>("[style]")) {
      expect(element.style.position).not.toBe("fixed");
      expect(Number.parseFloat(element.style.width || "0")).toBeLessThan(100);
    }
  });

  it("does not hang the page", async () => {
    const took = await cpuTime(async () => {
      for (const bit of ["[", "*a ", "![", "`a", "> ", "_a", "<a", "$a", "a@b.", "|a"]) await show(bit.repeat(3000));
      await show(`$${"\\def\\a{\\a\\a}\\a"}$`);
      await show(`$${"{".repeat(1900)}$`);
    });
    expect(took).toBeLessThan(30_000);
  }, 120_000);
});

describe("while it is being written", () => {
  it("keeps the elements that are there, and ends as if it had come at once", async () => {
    const text =
      "# Plan\n\nFirst **bold** and [a link](https://example.com/).\n\n```js\nconst a = 1;\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n";
    await loadRenderer();
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
    const { container, rerender } = render(<Markdown text="" streaming />);
    let heading: Element | null = null;
    for (let end = 1; end <= text.length; end += 4) {
      rerender(<Markdown text={text.slice(0, end)} streaming />);
      act(() => void vi.advanceTimersByTime(45));
      heading ??= container.querySelector("h2");
      expect(container.textContent).not.toMatch(/\*\*|\]\(|\|/);
    }
    vi.useRealTimers();
    rerender(<Markdown text={text} />);
    expect(container.querySelector("h2")).toBe(heading);
    const whole = render(<Markdown text={text} />).container;
    expect(within(container).getByRole("table")).toBeInTheDocument();
    await waitFor(() => expect(container.innerHTML).toBe(whole.innerHTML));
  });
});
