import { render } from "@testing-library/react";
import { describe, expect, it } from "vitest";
import { RenderedDocument } from "./rendered";

/** The directions of an answer's elements, of those that have one. */
function directions(text: string): string[] {
  const { container } = render(<RenderedDocument text={text} streaming={false} />);
  return [...container.querySelectorAll("[dir]")].map((each) => `${each.localName} ${each.getAttribute("dir")}`);
}

describe("the direction of a block", () => {
  it.each([
    ["مرحبا", ["p auto"]],
    ["# שלום", ["h2 auto"]],
    ["- مرحبا\n- hello", ["ul rtl", "li rtl", "div auto", "li auto", "div auto"]],
    ["1. one\n\n2. ثانيا", ["ol auto", "li auto", "p auto", "li rtl", "p auto"]],
    ["> مرحبا\n>\n> - نعم", ["blockquote rtl", "p auto", "ul rtl", "li rtl", "div auto"]],
    ["> hello", ["blockquote auto", "p auto"]],
    ["| الاسم | id |\n|---|---|\n| قلم | 1 |", ["table rtl", "th auto", "th auto", "td auto", "td auto"]],
    ["| name | b |\n|---|---|\n| قلم | c |", ["table auto", "th auto", "th auto", "td auto", "td auto"]],
    ["<details><summary>المزيد</summary>\n\nنص\n\n</details>", ["details rtl", "p auto"]],
    ["- `code` مرحبا", ["ul rtl", "li rtl", "div auto", "code ltr"]],
    ["- 1\n- $x$ שלום", ["ul rtl", "li auto", "div auto", "li rtl", "div auto", "span ltr"]],
    ["```py\nx = 'مرحبا'\n```", ["div ltr"]],
    ["انظر https://a.com", ["p auto", "a ltr"]],
    ["- https://a.com مرحبا", ["ul rtl", "li rtl", "div auto", "a ltr"]],
    ["- [مرحبا](https://a.com)", ["ul rtl", "li rtl", "div auto"]],
  ])("is its text's: %s", (text, expected) => {
    expect(directions(text)).toEqual(expected);
  });

  it("decides on which side a table's cells begin, where their column does not", () => {
    const { container } = render(
      <RenderedDocument text={"| الاسم | العدد | x |\n|---|:--|:-:|\n| قلم | 1 | y |"} streaming={false} />,
    );
    const sides = [...container.querySelectorAll("td")].map(
      (cell) => /text-(?:left|right|center)/.exec(cell.className)?.[0],
    );
    expect(sides).toEqual(["text-right", "text-left", "text-center"]);
  });
});
