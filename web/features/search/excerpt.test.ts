import { describe, expect, it } from "vitest";
import { splitExcerpt } from "./excerpt";

/** The parts as one text, matches in brackets. */
function shown(excerpt: string, ...matches: [number, number][]): string {
  const parts = splitExcerpt(
    excerpt,
    matches.map(([start, end]) => ({ start, end })),
  );
  expect(parts.map((part) => part.text).join("")).toBe(excerpt);
  return parts.map(({ text, isMatch }) => (isMatch ? `[${text}]` : text)).join("");
}

describe("the matches in an excerpt", () => {
  it("are marked where they stand", () => {
    expect(shown("the quick fox", [4, 9])).toBe("the [quick] fox");
    expect(shown("the quick fox", [0, 3], [10, 13])).toBe("[the] quick [fox]");
    expect(shown("the", [0, 3])).toBe("[the]");
    expect(shown("the")).toBe("the");
    expect(shown("")).toBe("");
  });

  it("are counted in code points", () => {
    expect(shown("🎉🎉 party 🎻 time", [3, 8])).toBe("🎉🎉 [party] 🎻 time");
    expect(shown("🎉🎉 party 🎻 time", [9, 10])).toBe("🎉🎉 party [🎻] time");
    expect(shown("schöne Grüße", [7, 12])).toBe("schöne [Grüße]");
    // Letters and accents may be points of their own.
    expect(shown("scho\u0308ne Gru\u0308ße", [8, 14])).toBe("scho\u0308ne [Gru\u0308ße]");
    expect(shown("今天我们去北京大学", [5, 7])).toBe("今天我们去[北京]大学");
    expect(shown("𠮷野家で食べる 👩‍👩‍👧", [1, 3], [8, 13])).toBe("𠮷[野家]で食べる [👩‍👩‍👧]");
  });

  it("do no harm when they overlap, touch, come in another order or lie outside", () => {
    expect(shown("abcdef", [1, 4], [2, 3], [3, 5])).toBe("a[bcde]f");
    expect(shown("abcdef", [1, 2], [2, 3])).toBe("a[bc]def");
    expect(shown("abcdef", [4, 5], [0, 1])).toBe("[a]bcd[e]f");
    expect(shown("abc", [2, 9], [10, 12], [1, 1], [2, 1])).toBe("ab[c]");
  });
});
