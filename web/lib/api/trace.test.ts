import { afterEach, describe, expect, it, vi } from "vitest";
import { anonymousApi, api, authorizedFetch } from "./client";
import { newTraceparent } from "./trace";

const FORM = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-01$/;

afterEach(() => vi.unstubAllGlobals());

describe("newTraceparent", () => {
  it("is a header of the standard's form, new each time", () => {
    const made = Array.from({ length: 100 }, newTraceparent);
    for (const each of made) expect(each).toMatch(FORM);
    expect(new Set(made.map((each) => each.split("-")[1])).size).toBe(100);
  });

  it("never has an id of zeros", () => {
    let calls = 0;
    vi.stubGlobal("crypto", {
      getRandomValues: (numbers: Uint8Array) => {
        calls += 1;
        return numbers.fill(calls === 1 ? 0 : 7);
      },
    });
    expect(newTraceparent()).toMatch(FORM);
    expect(calls).toBe(3);
  });
});

describe("requests to the gateway", () => {
  it("each carry a trace of their own", async () => {
    const sent: Request[] = [];
    vi.stubGlobal("fetch", async (request: Request) => {
      sent.push(request);
      return new Response("{}", { headers: { "content-type": "application/json" } });
    });
    await api.GET("/sessions");
    await anonymousApi.POST("/auth/login", { body: { email: "ada@example.com", password: "a-long-passphrase" } });
    await authorizedFetch("/runs");
    const traces = sent.map((request) => request.headers.get("traceparent"));
    expect(traces).toHaveLength(3);
    for (const trace of traces) expect(trace).toMatch(FORM);
    expect(new Set(traces).size).toBe(3);
  });
});
