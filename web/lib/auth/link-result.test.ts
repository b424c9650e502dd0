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
      mark: null,
    });
  });

  it("reads the mark of a sign-in from the query, where it was sent", () => {
    expect(readLink(at("?next=%2F&mark=m#access_token=a.b.c&refresh_token=r"))).toMatchObject({ mark: "m" });
    expect(readLink(at("#access_token=a.b.c&refresh_token=r&mark=m"))).toMatchObject({ mark: null });
  });

  it.each(["#", "?"])("reads the hash of a mail's link after %s", (sign) => {
    const link = readLink(at(`${sign}token_hash=abc.def&type=signup&email=a%2Bb%40example.com`));
    expect(link).toEqual({ kind: "one-time", tokenHash: "abc.def", type: "signup", email: "a+b@example.com" });
  });

  it("takes no hash without a kind that it knows", () => {
    expect(readLink(at("#token_hash=abc&type=__proto__"))).toEqual({ kind: "none" });
    expect(readLink(at("#token_hash=abc"))).toEqual({ kind: "none" });
  });

  it("takes a code for the one of somebody else's sign-in", () => {
    expect(readLink(at("?code=0c2e"))).toEqual({ kind: "error", code: "foreign_code", description: null });
  });

  it("reads that half of a change is done", () => {
    expect(readLink(at("#message=Confirmation+link+accepted.&sb="))).toEqual({ kind: "half" });
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
    expect(withoutLink(at("?token_hash=a&type=signup&email=b&code=c&mark=d"))).toBe("/callback/");
  });
});
