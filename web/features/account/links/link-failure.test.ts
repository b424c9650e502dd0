import { expect, it } from "vitest";
import { linkFailure } from "./link-failure";

it("never shows a text of an address", () => {
  expect(linkFailure("<b>call 555</b>")).toBe("The sign-in did not work.");
  expect(linkFailure("constructor")).toBe("The sign-in did not work.");
  expect(linkFailure("otp_expired")).toMatch(/expired/);
});
