// One-time codes and links. A code of six digits is spent after five wrong tries; a link holds the code's hash with a seal,
// as hashes of all codes of an address can be computed by anybody. Reading a link's address spends nothing.
import { createHash, createHmac, randomInt, timingSafeEqual } from "node:crypto";
import { authRefusal } from "./refusals.mjs";

const MOST_TRIES = 5;
const MOST_COUNTED = 20_000;
const VERIFY = "/auth/v1/verify";
const MOST_CHARACTERS = 512;
// Lite hashes address and code one behind the other. A longer or shorter code would let another address make the same hash,
// whose tries are counted apart.
const CODE = /^\d{6}$/;
// Which columns of auth.users a code of a type may stand in.
const COLUMNS = {
  signup: ["confirmation_token"],
  invite: ["confirmation_token"],
  recovery: ["recovery_token"],
  magiclink: ["recovery_token", "confirmation_token"],
  email: ["recovery_token", "confirmation_token"],
  email_change: ["email_change_token_current", "email_change_token_new"],
  reauthentication: ["reauthentication_token"],
};
// What Lite calls the types that it does not know.
const IN_LITE = { invite: "signup", email: "magiclink" };
const WRONG_LINK = "Email link is invalid or has expired";
const WRONG_CODE = "Token has expired or is invalid";
const HALF = "Confirmation link accepted. Please proceed to confirm link sent to the other email";

/** Verifies codes and links in front of Lite. `sql` is its connection, `secret` the key of the seals. */
export class OneTime {
  #sql;
  #secret;
  #expirySeconds;
  #mailSeconds;
  #tries = new Map();

  /** mailSeconds: how long an address waits for its next confirmation mail. */
  constructor({ sql, secret, expirySeconds, mailSeconds }) {
    this.#sql = sql;
    this.#secret = secret;
    this.#expirySeconds = expirySeconds;
    this.#mailSeconds = mailSeconds;
  }

  /** What stands in a link for a code's hash. */
  seal(hash) {
    return hash && `${hash}.${this.#mac(hash)}`;
  }

  /** A new code has been sent to the address, so its tries count anew. */
  forget(column, email) {
    this.#tries.delete(keyOf(column, email));
  }

  /**
   * The answer to a look at Lite's own kind of link, which leads to the page with a button: what a mail links to is also
   * opened by programs that look for danger in it. Null for any other request. findTarget: returns where it may lead.
   */
  async answerLook({ method }, { pathname, searchParams }, findTarget) {
    if (pathname !== VERIFY || (method !== "GET" && method !== "HEAD")) return null;
    const [type, token] = [searchParams.get("type"), searchParams.get("token")];
    if (!type || !token) return authRefusal(400, "validation_failed", "Verify requires a type and a token");
    const location = `${await findTarget()}#${new URLSearchParams({ token_hash: token, type })}`;
    return new Response(null, { status: 303, headers: { location, "cache-control": "no-store" } });
  }

  /** Gives an account that waits for its confirmation a new code and has it sent, unless the last one is too recent. */
  async renewConfirmation(address, mailer) {
    const email = address.toLowerCase();
    const code = String(randomInt(1_000_000)).padStart(6, "0");
    const hash = hashOf(email, code);
    const before = new Date(Date.now() - this.#mailSeconds * 1000).toISOString();
    const renewed = await this.#sql`
      update auth.users set confirmation_token = ${hash}, confirmation_sent_at = ${new Date().toISOString()}
      where email = ${email} and email_confirmed_at is null and confirmation_sent_at <= ${before}
      returning id`;
    if (renewed.length > 0) await mailer.sendConfirmation(email, hash, code);
  }

  /** The answer to POST /auth/v1/verify; null for any other request. forward: hands a request to Lite. */
  async answerVerification(request, { pathname }, forward) {
    if (pathname !== VERIFY || request.method !== "POST") return null;
    const proof = await readProof(request);
    if (proof === null) return authRefusal(400, "validation_failed", "Verify requires a type, and a token hash or an email and a token");
    const { type, email, token, tokenHash } = proof;
    const expired = () => authRefusal(403, "otp_expired", tokenHash === undefined ? WRONG_CODE : WRONG_LINK);
    if (tokenHash === undefined && !CODE.test(token)) return expired();
    const hash = tokenHash === undefined ? hashOf(email, token) : this.#unseal(tokenHash);
    if (hash === null) return expired();
    const keys = tokenHash === undefined ? COLUMNS[type].map((column) => keyOf(column, email)) : [];
    // Counted before it is tried, or many tries at once would count as one.
    if (!this.#count(keys)) return expired();
    const response = await this.#verify(type, hash, request, forward);
    if (response.ok) for (const key of keys) this.#tries.delete(key);
    return response.status === 403 ? expired() : response;
  }

  async #verify(type, hash, request, forward) {
    if (type === "email_change" && (await this.#isFirstOfTwo(hash))) {
      return Response.json({ code: "200", msg: HALF });
    }
    const headers = new Headers(request.headers);
    headers.delete("content-length");
    headers.set("content-type", "application/json");
    const body = JSON.stringify({ type: IN_LITE[type] ?? type, token_hash: hash });
    return forward(new Request(request.url, { method: "POST", headers, body }));
  }

  /**
   * Where a change of address asks both addresses, notes the first one's consent; Lite completes the change with either,
   * and only knows it by the column of the present address.
   */
  async #isFirstOfTwo(hash) {
    const since = new Date(Date.now() - this.#expirySeconds * 1000).toISOString();
    const [first] = await this.#sql`
      update auth.users set
        email_change_confirm_status = 1,
        email_change_token_current = nullif(email_change_token_current, ${hash}),
        email_change_token_new = nullif(email_change_token_new, ${hash})
      where (email_change_token_current = ${hash} or email_change_token_new = ${hash})
        and email_change_token_current is not null and email_change_token_new is not null
        and email_change_sent_at > ${since}
      returning id`;
    if (first) return true;
    await this.#sql`
      update auth.users set email_change_token_current = ${hash}, email_change_token_new = null
      where email_change_token_new = ${hash} and email_change_token_current is null and email_change_confirm_status = 1`;
    return false;
  }

  #count(keys) {
    const tries = keys.map((key) => this.#tries.get(key) ?? 0);
    keys.forEach((key, place) => {
      this.#tries.delete(key);
      this.#tries.set(key, tries[place] + 1);
    });
    while (this.#tries.size > MOST_COUNTED) this.#tries.delete(this.#tries.keys().next().value);
    return tries.every((count) => count < MOST_TRIES);
  }

  #unseal(text) {
    const [hash, mac = ""] = text.split(".");
    const [given, right] = [Buffer.from(mac), Buffer.from(this.#mac(hash))];
    return given.length === right.length && timingSafeEqual(given, right) ? hash : null;
  }

  #mac(hash) {
    return createHmac("sha256", this.#secret).update(`one-time link ${hash}`).digest("base64url");
  }
}

const keyOf = (column, email) => `${column} ${email.toLowerCase()}`;

// As Lite computes it.
const hashOf = (email, token) => createHash("sha256").update(email.toLowerCase() + token).digest("hex");

/** What a body proves with; null when it is none of the two ways. */
async function readProof(request) {
  const body = await request.json().catch(() => null);
  if (typeof body !== "object" || body === null) return null;
  const { type, email, token, token_hash: tokenHash } = body;
  if (typeof type !== "string" || !Object.hasOwn(COLUMNS, type)) return null;
  if (isText(tokenHash)) return { type, tokenHash };
  return isText(email) && isText(token) ? { type, email, token } : null;
}

const isText = (value) => typeof value === "string" && value !== "" && value.length <= MOST_CHARACTERS;
