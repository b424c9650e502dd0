import { describe, expect, it } from "vitest";
import { ApiError, asApiError, errorOf, isAbort } from "./errors";

function answer(status: number, body: string, headers: Record<string, string> = {}): Response {
  return new Response(body, { status, headers });
}

const limited = {
  error: {
    code: 429,
    status: "RESOURCE_EXHAUSTED",
    message: "Too many attempts. Try again in 42 s.",
    details: [{ reason: "TOO_MANY_ATTEMPTS", domain: "concerto", metadata: { retry_after_seconds: "42" } }],
  },
};

describe("errorOf", () => {
  it("takes over what the contract's body says", async () => {
    const body = JSON.stringify(limited);
    const error = await errorOf(answer(429, body, { "x-request-id": "r-1", "retry-after": "41" }));
    expect(error).toMatchObject({
      message: "Too many attempts. Try again in 42 s.",
      code: 429,
      status: "RESOURCE_EXHAUSTED",
      reason: "TOO_MANY_ATTEMPTS",
      requestId: "r-1",
      metadata: { retry_after_seconds: "42" },
      retryAfterSeconds: 41,
      isNetwork: false,
      isRetryable: true,
    });
  });

  it("finds the seconds to wait in the metadata when no header tells them", async () => {
    expect((await errorOf(answer(429, JSON.stringify(limited)))).retryAfterSeconds).toBe(42);
  });

  it("understands a moment as the time to wait", async () => {
    const moment = new Date(Date.now() + 30_000).toUTCString();
    const error = await errorOf(answer(503, "{}", { "retry-after": moment }));
    expect(error.retryAfterSeconds).toBeGreaterThan(27);
    expect(error.retryAfterSeconds).toBeLessThanOrEqual(30);
  });

  it("uses a body that was read already", async () => {
    expect((await errorOf(answer(429, ""), limited)).reason).toBe("TOO_MANY_ATTEMPTS");
  });

  it.each([
    [502, "<html>Bad gateway</html>"],
    [500, ""],
    [503, "null"],
    [500, '{"error": "text"}'],
    [500, '{"error": {"details": [null], "message": 7}}'],
  ])("has a sentence for an answer of %i that is not ours: %s", async (status, body) => {
    const error = await errorOf(answer(status, body));
    expect(error.code).toBe(status);
    expect(error.reason).toBe("UNKNOWN");
    expect(error.message).toMatch(/problem of its own/);
  });

  it("blames the page for a refusal that it cannot read", async () => {
    expect((await errorOf(answer(404, "Not here"))).message).toMatch(/Reload the page/);
  });
});

describe("field", () => {
  it.each([
    ["INVALID_FIELD", { field: "profile.status_text" }, "status_text"],
    ["INVALID_FIELD", { field: "email" }, "email"],
    ["USERNAME_TAKEN", { username: "ada" }, "username"],
    ["WEAK_PASSWORD", { problem: "it is too short" }, "password"],
    ["INTERNAL", {}, null],
  ])("%s %o is about %s", (reason, metadata, field) => {
    expect(new ApiError("…", { code: 400, status: "", reason, metadata }).field).toBe(field);
  });
});

describe("other failures", () => {
  it("says that Concerto cannot be reached when no answer came", () => {
    const cause = new TypeError("Failed to fetch");
    expect(ApiError.network(cause)).toMatchObject({
      code: 0,
      isNetwork: true,
      message: "Concerto cannot be reached. Check your connection and try again.",
      cause,
    });
  });

  it("keeps an ApiError and hides what is none", () => {
    const error = ApiError.network();
    expect(asApiError(error)).toBe(error);
    expect(asApiError(new TypeError("x is undefined")).message).not.toContain("undefined");
  });

  it("knows a request that was given up", () => {
    expect(isAbort(new DOMException("", "AbortError"))).toBe(true);
    expect(isAbort(new DOMException("", "TimeoutError"))).toBe(false);
  });
});
