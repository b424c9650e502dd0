import { describe, expect, it } from "vitest";
import type { AnswerPart } from "../runs/run-reducer";
import { answerReader } from "./speech";

/** What is said of a text that comes in pieces of some characters, and at its end. */
function said(text: string, step: number): string[] {
  const read = answerReader();
  const heard: string[] = [];
  const hear = (words: string) => words && heard.push(words);
  for (let end = step; end < text.length; end += step) hear(read([{ kind: "text", text: text.slice(0, end) }], true));
  hear(read([{ kind: "text", text }], false));
  return heard;
}

describe("an answer that is said", () => {
  it.each([1, 5, 40])("is said in whole sentences, each once, whatever its pieces (of %i)", (step) => {
    const text =
      "# The plan\n\nFirst, **boil** the water. It takes 3.5 minutes! Then\nwait.\n\n- one `x`\n- two\n\n" +
      "```js\nconst secret = 1;\n```\n\nSo $\\frac{1}{2}$ is it.\n\n$$\n\\int x\n$$\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nThe end";
    const heard = said(text, step).join(" ");
    expect(heard.replaceAll(/\s+/g, " ")).toBe(
      "The plan First, boil the water. It takes 3.5 minutes! Then wait. one x two So Formula is it. Formula a, b 1, 2 The end",
    );
  });

  it("is said a sentence at a time", () => {
    expect(said("One is here. Two follows it. Three", 1)).toEqual(["One is here.", "Two follows it.", "Three"]);
    expect(said("第一句。第二句！第三", 1)).toEqual(["第一句。", "第二句！", "第三"]);
    expect(said("الجملة الأولى. هل هذا واضح؟ نعم", 1)).toEqual(["الجملة الأولى.", "هل هذا واضح؟", "نعم"]);
  });

  it("goes on behind a tool", () => {
    const read = answerReader();
    const call = { id: "1", name: "f", arguments: "", result: null, isError: false } as unknown as Extract<
      AnswerPart,
      { kind: "tool" }
    >["call"];
    const parts: AnswerPart[] = [{ kind: "text", text: "I look it up" }];
    expect(read(parts, true)).toBe("");
    parts.push({ kind: "tool", call });
    expect(read(parts, true)).toBe("I look it up");
    parts.push({ kind: "text", text: "It is 5. So" });
    expect(read(parts, true)).toBe("It is 5.");
    expect(read(parts, false)).toBe("So");
  });

  it("says no marks of HTML", () => {
    expect(said("<details><summary>More</summary>\n\nPress <kbd>Ctrl</kbd> now.\n\n</details>", 3).join(" ")).toBe(
      "More Press Ctrl now.",
    );
  });
});
