import { describe, expect, it } from "vitest";
import { readLink, withoutLink } from "./link-result";

describe("readLink", () => {
  const at = (rest: string) => new URL(`http://127.0.0.1:8000/callback/${rest}`);

  it("reads tokens from the fragment", () => {
    expect(readLink(at("#access_token=a.b.c&refresh_token=r&expires_in=3600&type=recovery"))).toEqual({
      kind: "tokens",
      accessToken: "a.b.c",
      refreshToken: "r",
      type: "recovery",
    });
  });

  it("takes no tokens from the query, which servers log", () => {
    expect(readLink(at("?access_token=a.b.c&refresh_token=r"))).toEqual({ kind: "none" });
  });

  it.each(["#", "?"])("reads a failure after %s", (sign) => {
    const link = readLink(at(`${sign}error=access_denied&error_code=otp_expired&error_description=It+has+expired`));
    expect(link).toEqual({ kind: "error", code: "otp_expired", description: "It has expired" });
  });

  it("leaves nothing of it in the address but where to go next", () => {
    const address = at("?next=%2Fchat%2F&error=x&error_code=y#access_token=a&refresh_token=r");
    expect(withoutLink(address)).toBe("/callback/?next=%2Fchat%2F");
    expect(withoutLink(at("#access_token=a"))).toBe("/callback/");
  });
});
