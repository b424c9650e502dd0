import type { Nodes } from "mdast";
import { describe, expect, it } from "vitest";
import { cpuTime } from "@/test/cpu-time";
import { parseBlocks } from "./syntax-tree";

function formulas(text: string): string[] {
  const found: string[] = [];
  const visit = (node: Nodes): void => {
    if (node.type === "math") found.push(`block:${node.value}`);
    if (node.type === "inlineMath") found.push(`${node.display ? "large" : "inline"}:${node.value}`);
    if ("children" in node) node.children.forEach(visit);
  };
  parseBlocks(text).forEach(visit);
  return found;
}

describe("formulas", () => {
  it.each([
    ["$x$", ["inline:x"]],
    ["so $a_1 + b$, and $\\frac{1}{2}$.", ["inline:a_1 + b", "inline:\\frac{1}{2}"]],
    ["the $n$th of $2^n$", ["inline:n", "inline:2^n"]],
    ["3$\\times$4", ["inline:\\times"]],
    ["with \\$ in $\\$5 + x$", ["inline:\\$5 + x"]],
    ["$a\nb$", ["inline:a\nb"]],
    ["> $a +\n> b$", ["inline:a +\nb"]],
    ["**$x$**", ["inline:x"]],
    ["| $x$ | b |\n| --- | --- |\n| $y$ | 1 |", ["inline:x", "inline:y"]],
    ["so \\(x^2\\) and \\( y \\)", ["inline:x^2", "inline:y"]],
    ["so \\[x^2\\] within", ["large:x^2"]],
    ["so $$x^2$$ within", ["large:x^2"]],
    ["$$x^2$$", ["block:x^2"]],
    ["\\[x^2\\]", ["block:x^2"]],
    ["$$\nx\n\ny\n$$", ["block:x\ny"]],
    ["text\n\\[\na\n- b\n= c\n\\]\ntext", ["block:a\n- b\n= c"]],
    ["- item\n  $$\n  x\n  $$\n- next", ["block:x"]],
    ["- item\n\n  \\[\n  x \\\\[1ex]\n  y\n  \\]\n", ["block:x \\\\[1ex]\ny"]],
    ["> \\[\n> x\n> \\]", ["block:x"]],
    ["\\begin{x}", []],
  ])("are found: %j", (text, expected) => {
    expect(formulas(text).map((each) => each.replace(/\n +/g, "\n").replace(/: +/, ":"))).toEqual(expected);
  });

  it.each([
    "It costs $5 and $10.",
    "between $5 and $10, or $20-$30",
    "Basic ($5) against Pro ($10)",
    "**$5** to **$10**",
    "US$5 is what US$5 is",
    "$5 million and 10$ more",
    "$HOME/$USER and $PATH",
    "$ x $",
    "a $ b",
    "$20/month, $200/year",
    "\\$5 and \\$6$",
    "`$x$`",
    "```\n$x$\n```",
    "$$ is money, and so is\n\nmore $$ here",
    "\\[link\\](https://example.com)",
    "\\(never closed",
    "$$\nnever closed",
    "$$$",
    "I have $5, you have the other half of what we both found in $",
  ])("are not found in: %j", (text) => {
    expect(formulas(text)).toEqual([]);
  });

  it("take little work to be told from other things", async () => {
    const took = await cpuTime(() => {
      for (const bit of ["\\(", "$a", "\\[\n", "$$ a\n\n", "$\n", "\\["]) parseBlocks(bit.repeat(4000));
    });
    expect(took).toBeLessThan(20_000);
  });
});
