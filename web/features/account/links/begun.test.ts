import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { beginSignIn, hasAskedForMail, isSameAddress, isSpent, noteMailAsked, noteSpent, takeMark } from "./begun";

beforeEach(() => {
  window.localStorage.clear();
  window.sessionStorage.clear();
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

it("knows the mark of its own sign-in, once", () => {
  const mark = beginSignIn();
  expect(mark).toMatch(/^[0-9a-f]{32}$/);
  expect(takeMark(`${mark}0`)).toBe(false);
  expect(takeMark(mark)).toBe(true);
  expect(takeMark(mark)).toBe(false);
});

it("takes no sign-in for its own before it has begun one", () => {
  expect(takeMark(null)).toBe(false);
  expect(takeMark("")).toBe(false);
  expect(takeMark("null")).toBe(false);
});

it("remembers for a day which addresses it has asked mails for", () => {
  vi.useFakeTimers();
  noteMailAsked("ada@example.com");
  expect(hasAskedForMail("ada@example.com")).toBe(true);
  expect(hasAskedForMail("eve@example.com")).toBe(false);
  vi.advanceTimersByTime(25 * 3_600_000);
  expect(hasAskedForMail("ada@example.com")).toBe(false);
});

it("remembers the latest used links and not their whole hashes", () => {
  const hashes = Array.from({ length: 12 }, (_, n) => `${"h".repeat(60)}-${String(n).padStart(23, "0")}`);
  for (const hash of hashes) noteSpent(hash);
  expect(isSpent(hashes[11] ?? "")).toBe(true);
  expect(isSpent(hashes[0] ?? "")).toBe(false);
  expect(JSON.stringify(window.localStorage)).not.toContain(hashes[11]);
});

it("asks where the browser keeps nothing or keeps nonsense", () => {
  window.localStorage.setItem("concerto-mails-asked", '[null, 3, {"email": 4}]');
  window.localStorage.setItem("concerto-links-spent", "{");
  expect(hasAskedForMail("ada@example.com")).toBe(false);
  expect(isSpent("x")).toBe(false);
  vi.spyOn(Storage.prototype, "setItem").mockImplementation(() => {
    throw new DOMException("denied", "SecurityError");
  });
  noteMailAsked("ada@example.com");
  expect(hasAskedForMail("ada@example.com")).toBe(false);
  expect(takeMark(beginSignIn())).toBe(false);
});

it("leaves it to the API how addresses are spelt", () => {
  expect(isSameAddress("ada@example.com", "ada@example.com")).toBe(true);
  expect(isSameAddress("ada@example.com", "eve@example.com")).toBe(false);
  expect(isSameAddress(null, null)).toBe(false);
  expect(isSameAddress("", "")).toBe(false);
});
