import { describe, expect, it } from "vitest";
import { closeOpenEnds, PENDING_ADDRESS, PENDING_FORMULA } from "./open-ends";

const closed = (text: string): string => closeOpenEnds(text).text;
const P = PENDING_ADDRESS;
const F = PENDING_FORMULA;

describe("the end of a text that grows", () => {
  it.each([
    ["some **bold", "some **bold**"],
    ["some **bold te", "some **bold te**"],
    ["some **bold*", "some **bold**"],
    ["some **", "some"],
    ["some *", "some"],
    ["***both", "***both***"],
    ["**bold and *both", "**bold and *both***"],
    ["**done** and *more", "**done** and *more*"],
    ["2 * 3 and snake_case_name", "2 * 3 and snake_case_name"],
    ["~~gone", "~~gone~~"],
    ["`code", "`code`"],
    ["`", ""],
    ["text `", "text"],
    ["``a `b` c", "``a `b` c``"],
    ["`**no bold", "`**no bold`"],
    ["**bold `code", "**bold `code`**"],
    ["see [the do", `see [the do](${P})`],
    ["see [the docs](https://exa", `see [the docs](${P})`],
    ["see **[the docs](https://exa", `see **[the docs](${P})**`],
    ["see [the docs](https://example.com)", "see [the docs](https://example.com)"],
    ["see [docs](https://e.org/a_(b)) and", "see [docs](https://e.org/a_(b)) and"],
    ["as in [1", "as in [1"],
    ["as in [", "as in"],
    ["![an im", `![an im](${P})`],
    ["$\\frac{1}{2", `$\\frac{1}{2${F}$`],
    ["it costs $5 and", "it costs $5 and"],
    ["so $x$ and **b", "so $x$ and **b**"],
    ["$$\nx = 1\n", `$$\nx = 1${F}$$`],
    ["\\[ x", `\\[ x${F}\\]`],
    ["so \\(x", `so \\(x${F}\\)`],
    ["so \\ce{CO3^{2-", `so \\ce{CO3^{2-${F}}}`],
    ["so \\ce{H2O} and **b", "so \\ce{H2O} and **b**"],
    ["so \\begin{cases} x", `so \\begin{cases} x${F}\\end{cases}`],
    ["\\begin{align}\na &= b \\\\\n\\end{al", `\\begin{align}\na &= b \\\\${F}\\end{align}`],
    ["**重要：**后", "**重要：**后"],
    ["这是**“重", "这是**“重**"],
    ["H<sub>2</s", "H<sub>2</sub>"],
    ["**<kbd>a", "**<kbd>a</kbd>**"],
    ["a <kbd>", "a"],
    ["List<Str", "List"],
    ["List<String", "List<String"],
    ["text\n\n<details>\n<summ", "text\n\n"],
    ["a line\\", "a line"],
    ["so \\begin{al", "so"],
    ["a <br", "a "],
    ["1 < b", "1 < b"],
  ])("closes what is open: %j", (text, expected) => {
    expect(closed(text)).toBe(expected);
  });

  it.each([
    ["text\n-", "text\n"],
    ["text\n--", "text\n"],
    ["text\n===", "text\n"],
    ["text\n\n#", "text\n\n"],
    ["text\n\n##", "text\n\n"],
    ["text\n\n```", "text\n\n"],
    ["text\n\n1", "text\n\n"],
    ["- one\n- ", "- one\n"],
    ["- one\n  - ", "- one\n"],
    ["> text\n> #", "> text\n"],
    ["text\n\n$$", "text\n\n"],
    ["text\n\n\\begin{al", "text\n\n"],
  ])("holds back what may become a marker: %j", (text, expected) => {
    expect(closed(text)).toBe(expected);
  });

  it("shows a table only once it is one", () => {
    expect(closed("text\n\n| a | b")).toBe("text\n\n");
    expect(closed("text\n\n| a | b |\n")).toBe("text\n\n");
    expect(closed("| a | b |\n|")).toBe("| a | b |\n|---|---|");
    expect(closed("| a | b |\n| :--- | -")).toBe("| a | b |\n|:---|-|");
    expect(closed("| a | b |\n| :--- | ---: |\n")).toBe("| a | b |\n|:---|---:|");
    expect(closed("| a | b |\n|---|---|\n| **1")).toBe("| a | b |\n|---|---|\n| **1**");
  });

  it("leaves code in a list alone", () => {
    const text = "- so:\n  ```js\n  const a = '**b";
    expect(closed(text)).toBe(text);
    expect(closed("- so:\n  ```js\n  a\n  ``")).toBe("- so:\n  ```js\n  a\n");
  });

  it("does not look beyond the paragraph", () => {
    expect(closed("a ** b\n\nc")).toBe("a ** b\n\nc");
    expect(closed("- **a\n- b")).toBe("- **a\n- b");
  });

  it("says from where on the text is another one", () => {
    for (const text of [
      "a **b",
      "a `b",
      "[a](b",
      "a\n\n-",
      "| a |\n|-",
      "**a `b",
      "see ![x",
      "$$ x_1",
      "a **b** *",
      "a\\",
    ]) {
      const { text: result, editedFrom } = closeOpenEnds(text);
      expect(result.slice(0, editedFrom)).toBe(text.slice(0, editedFrom));
    }
  });
});
