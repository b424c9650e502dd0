import type { Nodes } from "mdast";
import { describe, expect, it } from "vitest";
import { advance, type MarkdownDocument } from "./document";
import { parseBlocks } from "./syntax-tree";

/** A tree without places and levels, which differ between a text read whole and one read in parts. */
function bare(node: Nodes): unknown {
  const { position: _position, data: _data, ...rest } = node;
  if (!("children" in rest)) return rest;
  return { ...rest, children: rest.children.map((child) => bare(child)) };
}

function stream(text: string, step: number): MarkdownDocument {
  let document: MarkdownDocument | null = null;
  for (let end = step; end < text.length; end += step) document = advance(document, text.slice(0, end), true);
  return advance(advance(document, text, true), text, false);
}

function expectSame(text: string, step = 1): void {
  const { blocks } = stream(text, step);
  expect(blocks.map((block) => bare(block.node))).toEqual(parseBlocks(text).map(bare));
}

/** Repeatable chance. */
function chance(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

const PIECES = [
  "text ", "more text", "\n", "\n", "\n\n", "\n\n", "- item", "- ", "1. one", "  indented", "    code", "> quote",
  "```\n", "```js\n", "~~~\n", "   ```\n", "# Title", "---", "===", "| a | b |\n", "| --- | --- |\n", "| 1 | 2 |\n",
  "**bold", "**", "*", "_", "`", "``", "$$\n", "$x$", "$$", "\\[\n", "\\]\n", "\\(a\\)", "<div>\n", "</div>\n", "<!-- ", "-->",
  "<br>", "[link](http://a.b)", "[x", "](", ")", "![", "- [ ] task", "- [x] done", "\t", "\\", "www.a.bc", "😀", "ä",
  "**重要：**", "。", "见https://a.bc/d", "\\begin{align}\n", "\\end{align}", "\\ce{H2O}", "\\ce{", "}",
  "<details>\n", "<summary>A</summary>\n", "</details>\n", "<details><summary>A</summary>", "</details>", "<kbd>", "</kbd>", "| $|x|$ | $P(A|B)$ |\n", "$|",
]; // biome-ignore format: a list of bits

describe("a text that grows", () => {
  it.each([
    "# Title\n\nA paragraph\nof two lines.\n\nAnother.\n",
    "- one\n- two\n\n  still two\n\n- three\n\nAfter the list.\n",
    "1. Do this:\n```bash\nls\n\nls -l\n```\n2. Then that.\n",
    "- ```\n  code\n\n  more\n  ```\n- next\n\nEnd\n",
    "Text\n```python\nprint(1)\n\n# no heading\n```\nText\n",
    "````md\n```js\n```\n````\n\n```\nnever closed\n\n# no heading",
    "  ```js\n  indented\n    more\n  ```\ntext",
    "> quote\nlazy\n\n> another\n> ```\n> code\n\nout of it\n",
    "a\n===\n\nb\n---\n\n---\n\nc",
    "before\n\n| a | b |\n| - | -: |\n| 1 | 2 |\n| 3 | 4 |\n\nafter",
    "$$\nx = 1\n\n- 2\n$$\n\nand \\[\ny\n\\] and $$z$$ end\n",
    "<div>\n**no**\n</div>\n\n<script>\nalert(1)\n\nalert(2)\n</script>\n\nend",
    "    code\n\n    more code\n\ntext\n\n    code",
    "- a\n\n1. b\n\n* c\n\nd\n10. e",
    "so:\n\\begin{align}\na &= b \\\\\n\nc\n\\end{align}\n\nend",
    "| a | b |\n|-|-|\n| $|x|$ | $P(A|B)$ |\n| $5 | $10 |\n\nend",
    "**重要：**见https://a.bc/d。后面\n\n~~旧。~~新",
    "a\r\nb\r\n\r\n- c\r\n- d\r\n\r\ne\r\n",
    '```js title="a b"\nx\n```\n``` \\*\nx\n```\n',
  ])("is at its end what it would be read whole: %j", (text) => {
    for (const step of [1, 2, 3, 7]) expectSame(text.replaceAll("\r\n", "\n"), step);
    expect(stream(text, 1).blocks.length).toBe(stream(text, 1000).blocks.length);
  });

  it("is at its end what it would be read whole, whatever it is", () => {
    const random = chance(77);
    const different: string[] = [];
    for (let round = 0; round < 600; round++) {
      const text = Array.from({ length: 3 + random(20) }, () => PIECES[random(PIECES.length)] ?? "").join("");
      const streamed = stream(text, 1 + random(6)).blocks.map((block) => bare(block.node));
      if (JSON.stringify(streamed) !== JSON.stringify(parseBlocks(text).map(bare))) different.push(text);
    }
    // In some nonsense the parser's own answer depends on what stood above a block; such a text is only cut elsewhere.
    expect(different.length).toBeLessThanOrEqual(3);
  }, 60_000);

  it("leaves the blocks before the last ones as they are", () => {
    const text = Array.from({ length: 30 }, (_, index) => `Paragraph ${index} with **bold** text.\n\n`).join("");
    const half = advance(null, text.slice(0, text.length / 2), true);
    const whole = advance(half, text, true);
    const settled = half.blocks.slice(0, -1);
    expect(settled.length).toBeGreaterThan(10);
    for (const block of settled) expect(whole.blocks).toContain(block);
    const done = advance(whole, text, false);
    for (const block of whole.blocks.slice(0, -1)) expect(done.blocks).toContain(block);
  });

  it.each([
    Array.from({ length: 30 }, (_, index) => `- item ${index}\n${index % 7 === 3 ? "\n" : ""}`).join(""),
    Array.from({ length: 12 }, (_, index) => `${index + 3}. item **${index}**\n   - nested\n     1. deep\n`).join(""),
    `- a\n\n${Array.from({ length: 12 }, (_, index) => `- [${index % 2 ? "x" : " "}] task ${index}\n`).join("")}`,
    Array.from(
      { length: 9 },
      (_, index) => `* item\n\n  paragraph ${index}\n\n  \`\`\`js\n  code\n\n  more\n  \`\`\`\n`,
    ).join(""),
    `| a | b |\n| :- | -: |\n${Array.from({ length: 20 }, (_, index) => `| ${index} | **b** |\n`).join("")}`,
    `a | b\n--- | ---\n${Array.from({ length: 9 }, (_, index) => `${index} | \`c\`\n`).join("")}`,
  ])(
    "reads only the end of a long list or table: %j",
    (long) => {
      for (const end of ["", "\nThe end.\n", "\n# Title\n\n- another\n- list\n", "lazy\n\n1. one\n\n---\n"]) {
        const text = `Before:\n\n${long}${end}`;
        expectSame(text, 1);
        let document: MarkdownDocument | null = null;
        let carried = false;
        for (let length = 1; length <= text.length; length += 3) {
          document = advance(document, text.slice(0, length), true);
          carried ||= document.carried !== null;
          const anew = advance(null, text.slice(0, length), true);
          expect(document.blocks.map((block) => bare(block.node))).toEqual(
            anew.blocks.map((block) => bare(block.node)),
          );
        }
        expect(carried).toBe(true);
      }
    },
    60_000,
  );

  it("begins anew when it becomes another text", () => {
    const first = advance(null, "# One\n\ntext", true);
    const second = advance(first, "# Two\n\ntext", true);
    expect(second.blocks.map((block) => block.source)).toEqual(["# Two", "text"]);
  });

  it("resolves links and footnotes that are defined elsewhere once it is complete", () => {
    const text = "See [the docs][1] and a note[^n].\n\n[1]: https://example.com/\n\n[^n]: The *note*.\n";
    const document = stream(text, 1);
    expect(document.references?.definitions.get("1")?.url).toBe("https://example.com/");
    expect(document.references?.footnotes.map((note) => note.identifier)).toEqual(["n"]);
  });

  it("gives headings levels without gaps, below the page's own", () => {
    const text = "### First\n\n##### Deeper\n\n# Top\n\n## Second\n\n- #### In a list\n\n## Last\n";
    const levels: (number | undefined)[] = [];
    const visit = (node: Nodes): void => {
      if (node.type === "heading") levels.push(node.data?.level);
      if ("children" in node) node.children.forEach(visit);
    };
    for (const block of stream(text, 3).blocks) visit(block.node);
    expect(levels).toEqual([2, 3, 2, 3, 4, 3]);
  });
});
