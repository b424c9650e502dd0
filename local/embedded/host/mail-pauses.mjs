// How soon an address gets the next mail of a kind, as a hosted project has it. An address that nobody has registered is
// answered the same, or the pause would tell which ones are.

const MOST_ADDRESSES = 20_000;
const AUTH = "/auth/v1/";
const RECOVERING = new Set(["recover", "otp", "magiclink"]);

/** Notes when which address got a mail. seconds: the pause between two; 0 for none. */
export class MailPauses {
  #seconds;
  #sent = new Map();

  constructor(seconds) {
    this.#seconds = seconds;
  }

  /** Takes a request that sends a mail to an address, or answers that it comes too soon. Null for any other request. */
  async refuse(request, { pathname }) {
    const route = pathname.startsWith(AUTH) ? pathname.slice(AUTH.length) : "";
    if (this.#seconds === 0 || request.method !== "POST" || !(RECOVERING.has(route) || route === "resend")) return null;
    const body = await request.clone().json().catch(() => null);
    if (typeof body?.email !== "string") return null;
    const kind = route === "resend" ? `resend ${body.type}` : "recovery";
    return this.take(kind, body.email.trim().toLowerCase());
  }

  /** Takes one mail of a kind, or answers how long to wait. */
  take(kind, address) {
    const key = `${kind} ${address}`;
    const now = performance.now() / 1000;
    const left = (this.#sent.get(key) ?? Number.NEGATIVE_INFINITY) + this.#seconds - now;
    if (left > 0) return tooSoon(Math.ceil(left));
    this.#sent.delete(key);
    this.#sent.set(key, now);
    if (this.#sent.size > MOST_ADDRESSES) this.#sent.delete(this.#sent.keys().next().value);
    return null;
  }
}

function tooSoon(seconds) {
  const msg = `For security purposes, you can only request this after ${seconds} seconds.`;
  const body = { code: 429, error_code: "over_email_send_rate_limit", msg };
  return Response.json(body, { status: 429, headers: { "x-sb-error-code": body.error_code, "retry-after": String(seconds) } });
}
