// @vitest-environment node
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";

/** A gateway and an auth server in one, over real HTTP: who holds a valid token is let in. */
class Backend {
  tokenCalls: string[] = [];
  meCalls: { token: string; body: string }[] = [];
  valid = new Set<string>();
  /** Decides what the exchange answers; null exchanges. */
  refusal: { status: number; body: object } | null = null;
  meReason = "TOKEN_EXPIRED";
  lifetime = 3600;
  origin = "";
  private count = 0;
  private readonly server: Server = createServer((request, response) => void this.answer(request, response));

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    this.origin = `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  reset(): void {
    this.tokenCalls = [];
    this.meCalls = [];
    this.valid.clear();
    this.refusal = null;
    this.meReason = "TOKEN_EXPIRED";
  }

  session(userId: string, secondsLeft: number) {
    this.count += 1;
    const now = Math.floor(realNow() / 1000);
    const exp = now + secondsLeft;
    const accessToken = jwt({
      sub: userId,
      email: `${userId}@example.com`,
      iat: exp - this.lifetime,
      exp,
      n: this.count,
    });
    return {
      access_token: accessToken,
      refresh_token: `refresh-${this.count}`,
      token_type: "bearer",
      expires_in: secondsLeft,
      expires_at: exp,
      user: { id: userId, email: `${userId}@example.com` },
    };
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let body = "";
    for await (const chunk of request) body += chunk;
    const path = request.url?.split("?")[0];
    const send = (status: number, content: object) => {
      response.writeHead(status, { "content-type": "application/json", date: new Date(realNow()).toUTCString() });
      response.end(JSON.stringify(content));
    };
    if (path === "/config.json") {
      send(200, {
        supabase_url: this.origin,
        supabase_publishable_key: "sb_publishable_x",
        providers: [],
        version: "1",
      });
    } else if (path === "/auth/v1/token") {
      this.tokenCalls.push(JSON.parse(body).refresh_token);
      // As slow as a real exchange: others ask for one meanwhile.
      await new Promise((resolve) => setTimeout(resolve, 30));
      if (this.refusal) return send(this.refusal.status, this.refusal.body);
      const next = this.session("ada", this.lifetime);
      this.valid.add(next.access_token);
      send(200, next);
    } else {
      const token = (request.headers.authorization ?? "").replace("Bearer ", "");
      this.meCalls.push({ token, body });
      if (this.valid.has(token)) return send(200, { id: "ada" });
      send(401, {
        error: { code: 401, status: "UNAUTHENTICATED", message: "…", details: [{ reason: this.meReason }] },
      });
    }
  }
}

const realNow = Date.now.bind(Date);
const backend = new Backend();
const stored = new Map<string, string>();

function jwt(claims: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}.${Buffer.from("signature").toString("base64url")}`;
}

/** A tab: its own instances of all our modules, over the storage and the locks that tabs share. */
async function openTab() {
  vi.resetModules();
  const [client, tokens, store, config, errors] = await Promise.all([
    import("@/lib/api/client"),
    import("./tokens"),
    import("./store"),
    import("@/lib/config"),
    import("@/lib/api/errors"),
  ]);
  return { ...client, ...tokens, ...store, ...config, ...errors };
}

function signIn(secondsLeft: number, userId = "ada") {
  const session = backend.session(userId, secondsLeft);
  stored.set("concerto-auth", JSON.stringify(session));
  return session;
}

beforeAll(async () => {
  await backend.start();
  const localStorage = {
    getItem: (key: string) => stored.get(key) ?? null,
    setItem: (key: string, value: string) => void stored.set(key, value),
    removeItem: (key: string) => void stored.delete(key),
  };
  const listen = { addEventListener: () => undefined, removeEventListener: () => undefined };
  vi.stubGlobal("window", { location: { origin: backend.origin }, localStorage, ...listen });
});

afterAll(async () => {
  vi.unstubAllGlobals();
  await backend.stop();
});

beforeEach(() => {
  stored.clear();
  backend.reset();
});

afterEach(() => {
  vi.restoreAllMocks();
});

describe("authorizedFetch", () => {
  it("sends the stored token and exchanges nothing while it is taken", async () => {
    const session = signIn(3600);
    backend.valid.add(session.access_token);
    const tab = await openTab();
    expect((await tab.authorizedFetch("/auth/me")).status).toBe(200);
    expect(backend.meCalls).toEqual([{ token: session.access_token, body: "" }]);
    expect(backend.tokenCalls).toEqual([]);
  });

  it.each([
    ["that expired", -60],
    ["that ends soon", 30],
    ["that looks valid but is refused", 3000],
  ])("exchanges a token %s once for 20 waiting requests", async (_name, secondsLeft) => {
    const session = signIn(secondsLeft);
    const tab = await openTab();
    const answers = await Promise.all(Array.from({ length: 20 }, () => tab.authorizedFetch("/auth/me")));
    expect(answers.map((answer) => answer.status)).toEqual(Array(20).fill(200));
    expect(backend.tokenCalls).toEqual([session.refresh_token]);
    expect(tab.readSession()?.refreshToken).not.toBe(session.refresh_token);
  });

  it("exchanges a token once for 50 tabs", async () => {
    const session = signIn(-60);
    const tabs = [];
    for (let index = 0; index < 50; index += 1) tabs.push(await openTab());
    const answers = await Promise.all(tabs.map((tab) => tab.authorizedFetch("/auth/me")));
    expect(answers.every((answer) => answer.status === 200)).toBe(true);
    expect(backend.tokenCalls).toEqual([session.refresh_token]);
  });

  it("waits for what another tab has exchanged, however late the storage shows it", async () => {
    const session = signIn(-60);
    const [first, second] = [await openTab(), await openTab()];
    expect((await first.authorizedFetch("/auth/me")).status).toBe(200);
    const fresh = stored.get("concerto-auth") ?? "";
    stored.set("concerto-auth", JSON.stringify(session));
    const answer = second.authorizedFetch("/auth/me");
    // Nothing happens, for longer than a busy machine's storage has been late.
    await new Promise((over) => setTimeout(over, 4_000));
    expect(backend.tokenCalls).toEqual([session.refresh_token]);
    stored.set("concerto-auth", fresh);
    expect((await answer).status).toBe(200);
    expect(backend.tokenCalls).toEqual([session.refresh_token]);
  });

  it("repeats a request with its body", async () => {
    signIn(3600);
    const tab = await openTab();
    const answer = await tab.authorizedFetch("/sessions", { method: "POST", body: '{"name":"x"}' });
    expect(answer.status).toBe(200);
    expect(backend.meCalls.map((call) => call.body)).toEqual(['{"name":"x"}', '{"name":"x"}']);
  });

  it("does the same for the typed client", async () => {
    signIn(3600);
    const tab = await openTab();
    const user = await tab.unwrap(tab.api.PATCH("/auth/me", { body: { display_name: "Ada" } }));
    expect(user).toEqual({ id: "ada" });
    expect(backend.meCalls.map((call) => call.body)).toEqual(Array(2).fill('{"display_name":"Ada"}'));
    expect(backend.tokenCalls).toHaveLength(1);
  });

  it.each([
    [400, { code: 400, error_code: "refresh_token_already_used", msg: "Invalid Refresh Token: Already Used" }],
    [400, { error: "invalid_grant", error_description: "Invalid Refresh Token" }],
    [403, { code: 403, error_code: "user_banned", msg: "User is banned" }],
    [403, { code: 403, error_code: "session_not_found", msg: "Session not found" }],
  ])("signs out when the auth server refuses with %i %o", async (status, body) => {
    signIn(3000);
    backend.refusal = { status, body };
    const tab = await openTab();
    expect((await tab.authorizedFetch("/auth/me")).status).toBe(401);
    expect(tab.readSession()).toBeNull();
    expect(tab.leaveReason()).toBe("ended");
  });

  it.each([
    [429, { code: 429, error_code: "over_request_rate_limit", msg: "Slow down" }],
    [401, { message: "Invalid API key" }],
    [404, { message: "no Route matched" }],
  ])("stays signed in when the auth server answers %i, and tries again later", async (status, body) => {
    const session = signIn(-60);
    backend.refusal = { status, body };
    const tab = await openTab();
    await tab.loadConfig();
    await expect(tab.authorizedFetch("/auth/me")).rejects.toMatchObject({ code: 503, isRetryable: true });
    expect(tab.readSession()?.refreshToken).toBe(session.refresh_token);
    backend.refusal = null;
    expect((await tab.authorizedFetch("/auth/me")).status).toBe(200);
  });

  it("stays signed in while offline, and asks nobody", async () => {
    signIn(-60);
    const tab = await openTab();
    await tab.loadConfig();
    vi.stubGlobal("navigator", { onLine: false, locks: navigator.locks });
    await expect(tab.authorizedFetch("/auth/me")).rejects.toMatchObject({ isNetwork: true });
    expect(tab.readSession()).not.toBeNull();
    expect(backend.tokenCalls).toEqual([]);
    vi.stubGlobal("navigator", { onLine: true, locks: navigator.locks });
    expect((await tab.authorizedFetch("/auth/me")).status).toBe(200);
  });

  it.each([2 * 3_600_000, -2 * 3_600_000])("does not mind a clock that is off by %i ms", async (offset) => {
    const session = signIn(1800);
    backend.valid.add(session.access_token);
    vi.spyOn(Date, "now").mockImplementation(() => realNow() + offset);
    const tab = await openTab();
    await tab.loadConfig();
    for (let index = 0; index < 3; index += 1) expect((await tab.authorizedFetch("/auth/me")).status).toBe(200);
    expect(backend.tokenCalls).toEqual([]);
    backend.valid.clear();
    for (let index = 0; index < 3; index += 1) expect((await tab.authorizedFetch("/auth/me")).status).toBe(200);
    expect(backend.tokenCalls).toEqual([session.refresh_token]);
  });

  it("signs out when the sign-in was ended on the server", async () => {
    signIn(3600);
    backend.meReason = "SIGN_IN_ENDED";
    const tab = await openTab();
    await tab.authorizedFetch("/auth/me");
    expect(tab.readSession()).toBeNull();
    expect(backend.tokenCalls).toEqual([]);
  });

  it("signs out when a new token is refused as well", async () => {
    signIn(3600);
    const tab = await openTab();
    vi.spyOn(backend.valid, "has").mockReturnValue(false);
    expect((await tab.authorizedFetch("/auth/me")).status).toBe(401);
    expect(backend.meCalls).toHaveLength(2);
    expect(tab.readSession()).toBeNull();
  });

  it("never repeats one person's request as another", async () => {
    signIn(3600, "eve");
    const tab = await openTab();
    const asked = tab.authorizedFetch("/auth/me");
    const ada = signIn(3600, "ada");
    backend.valid.add(ada.access_token);
    expect((await asked).status).toBe(401);
    expect(backend.meCalls.map((call) => call.token)).not.toContain(ada.access_token);
    expect(tab.readSession()?.userId).toBe("ada");
  });

  it("leaves other refusals alone", async () => {
    signIn(3600);
    backend.meReason = "INVALID_CREDENTIALS";
    const tab = await openTab();
    expect((await tab.authorizedFetch("/auth/me")).status).toBe(401);
    expect(tab.readSession()).not.toBeNull();
    expect(backend.tokenCalls).toEqual([]);
  });

  it("says that a request got no answer, and passes on that one was given up", async () => {
    const session = signIn(3600);
    backend.valid.add(session.access_token);
    const tab = await openTab();
    const controller = new AbortController();
    controller.abort();
    const given = tab.authorizedFetch("/auth/me", { signal: controller.signal });
    await expect(given).rejects.toMatchObject({ name: "AbortError" });
    vi.spyOn(globalThis, "fetch").mockRejectedValue(new TypeError("fetch failed"));
    await expect(tab.authorizedFetch("/auth/me")).rejects.toMatchObject({ isNetwork: true });
  });
});
