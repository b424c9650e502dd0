import { describe, expect, it } from "vitest";
import { safeReturnPath } from "./paths";

const ELSEWHERE = [
  null,
  undefined,
  "",
  "chat/",
  "https://evil.example/",
  "//evil.example/",
  "/\\evil.example",
  "\\\\evil.example",
  "/\t/evil.example",
  "/\n/evil.example",
  "javascript:alert(1)",
  "/chat/\u202egnp",
  "/..//evil.example",
  "/.//evil.example/",
  "/a/..//evil.example",
];

describe("safeReturnPath", () => {
  it.each(ELSEWHERE)("answers %j with the home page", (next) => {
    expect(safeReturnPath(next)).toBe("/");
  });

  it.each(["/", "/chat/", "/chat/?id=1&message=2&order=3", "/search/?q=a%20b%2F%2Fc", "/settings/?section=usage"])(
    "lets %s pass",
    (next) => {
      expect(safeReturnPath(next)).toBe(next);
    },
  );
});
