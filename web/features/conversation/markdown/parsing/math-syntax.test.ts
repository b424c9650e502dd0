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
    ["$\\ce{H2O}$ and \\ce{CO3^{2-}}, \\pu{5 kg}", ["inline:\\ce{H2O}", "inline:\\ce{CO3^{2-}}", "inline:\\pu{5 kg}"]],
    ["\\begin{align}\na &= b \\\\\nc\n\\end{align}", ["block:\\begin{align}\na &= b \\\\\nc\n\\end{align}"]],
    ["> \\begin{CD}\n> a\n> \\end{CD}", ["block:\\begin{CD}\na\n\\end{CD}"]],
    ["- i\n  \\begin{gather*}\n  a\n\n  b\n  \\end{gather*}\n- k", ["block:\\begin{gather*}\na\nb\n\\end{gather*}"]],
    ["so:\n\\begin{pmatrix}1\\end{pmatrix}\nmore", ["block:\\begin{pmatrix}1\\end{pmatrix}"]],
    ["so \\begin{cases} x \\end{cases} then", ["large:\\begin{cases} x \\end{cases}"]],
    [
      "\\begin{matrix}\\begin{matrix}1\\end{matrix}\\end{matrix}",
      ["block:\\begin{matrix}\\begin{matrix}1\\end{matrix}\\end{matrix}"],
    ],
    ["$$\\begin{align}a\\end{align}$$", ["block:\\begin{align}a\\end{align}"]],
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
    "\\begin{document}\nx\n\\end{document}",
    "\\begin{align} without its end",
    "\\\\begin{align} x \\\\end{align}",
    "`\\begin{align}x\\end{align}` and `\\ce{H2O}`",
    "    \\begin{align}\n    x\n    \\end{align}",
    "\\cell{x} and \\ce{never closed",
    "I have $5, you have the other half of what we both found in $",
  ])("are not found in: %j", (text) => {
    expect(formulas(text)).toEqual([]);
  });

  it.each([
    ["| $|x|$ | $P(A|B)$ |", ["inline:|x|", "inline:P(A|B)"]],
    ["| \\(a|b\\) | $$c|d$$ |", ["inline:a|b", "large:c|d"]],
    ["| $\\|v\\|$ | $\\{x | x > 0\\}$ |", ["inline:\\|v\\|", "inline:\\{x | x > 0\\}"]],
    ["| $||v||$ | $5 |", ["inline:||v||"]],
    ["$|x|$ | 2", ["inline:|x|"]],
    ["| $5 | $10 |", []],
    ["| $HOME | a$ |", []],
    ["| `$a|b$` | c |", []],
    ["| `a|b` | $|x|$ |", ["inline:|x|"]],
    ["| $5 | $10 | $15 |", []],
  ])("of a table may hold pipes: %j", (row, expected) => {
    for (const text of [
      `a | b\n-|-\n${row}\nc | d`,
      `> | a | b |\n> |:--|--:|\n> ${row}`,
      `- | a | b |\n  |---|---|\n  ${row}`,
    ]) {
      expect(formulas(text)).toEqual(expected);
    }
    if (expected.length > 0) expect(formulas(`${row}\n| --- | --- |\n| 1 | 2 |`)).toEqual(expected);
    expect(JSON.stringify(parseBlocks(`${row}\n\n\`\`\`\n|-|-|\n${row}\n\`\`\``))).not.toContain("\uE001");
  });

  it("take little work to be told from other things", async () => {
    const took = await cpuTime(() => {
      for (const bit of ["\\(", "$a", "\\[\n", "$$ a\n\n", "$\n", "\\[", "\\begin{align}\n", "\\ce{"])
        parseBlocks(bit.repeat(4000));
      parseBlocks(`a | b\n-|-\n${"$|x ".repeat(4000)}${"\\(|".repeat(4000)}`);
    });
    expect(took).toBeLessThan(20_000);
  });
});
