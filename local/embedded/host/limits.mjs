// How often one address may ask for what costs or can be guessed, as a hosted project limits it: buckets of tokens that
// hold a burst and fill again steadily (https://supabase.com/docs/guides/auth/rate-limits).
import { timingSafeEqual } from "node:crypto";
import { isIPv4, isIPv6 } from "node:net";

const BURST = 30;
const WINDOW_SECONDS = 300;
const MOST_BUCKETS = 20_000;
const MOST_BODY_BYTES = 64 * 1024;
const AUTH = "/auth/v1/";
const FORWARDING_KEY = "x-concerto-forwarding-key";

/**
 * Whether the auth service speaks for somebody: it has one address for all people, whom the gateway limits one by one. A
 * hosted project knows no such key and limits the service as a whole.
 */
export function isForwarded({ headers }, key) {
  const given = Buffer.from(headers.get(FORWARDING_KEY) ?? "");
  const right = Buffer.from(key);
  return right.length > 0 && given.length === right.length && timingSafeEqual(given, right);
}

/** Refuses what no account is: a body for the auth server that is large, or does not say how large it is. Otherwise null. */
export function refuseLarge({ headers }, { pathname }) {
  if (!pathname.startsWith(AUTH)) return null;
  if (headers.has("transfer-encoding")) return refusal(411, "request_length_required", "Send the length of the body");
  if (Number(headers.get("content-length") ?? 0) <= MOST_BODY_BYTES) return null;
  return refusal(413, "request_too_large", `The body is larger than ${MOST_BODY_BYTES} bytes`);
}

/** Which kind of request it is, and so whose bucket it empties; null for one that is not limited. */
export function kindOf({ method }, { pathname, searchParams }) {
  if (!pathname.startsWith(AUTH)) return null;
  switch (`${method} ${pathname.slice(AUTH.length)}`) {
    case "POST token":
      // Whatever is none of these is a password or a mistake.
      return ["refresh_token", "pkce"].includes(searchParams.get("grant_type")) ? "token" : "password";
    case "POST signup":
      return "signup";
    case "POST recover":
    case "POST otp":
    case "POST magiclink":
    case "POST resend":
    case "GET reauthenticate":
      return "mail";
    case "PUT user":
      return "user";
    case "POST verify":
      return "code";
    default:
      return null;
  }
}

/** Counts requests per address and kind. `per` is how many of a kind an address may make in five minutes, in the long run. */
export class Limits {
  #per;
  #now;
  #buckets = new Map();

  constructor(per, now = () => performance.now() / 1000) {
    this.#per = per;
    this.#now = now;
  }

  /** Counts one request. Returns 0, or in how many seconds the next one is taken. */
  take(kind, address) {
    if (this.#per[kind] === Infinity) return 0;
    const perSecond = this.#per[kind] / WINDOW_SECONDS;
    const key = `${kind} ${networkOf(address)}`;
    const now = this.#now();
    const bucket = this.#buckets.get(key) ?? { left: BURST, at: now };
    const left = Math.min(BURST, bucket.left + (now - bucket.at) * perSecond);
    // The latest stands last, so that what goes when there are too many is what has been still the longest.
    this.#buckets.delete(key);
    this.#buckets.set(key, { left: left < 1 ? left : left - 1, at: now });
    if (this.#buckets.size > MOST_BUCKETS) this.#buckets.delete(this.#buckets.keys().next().value);
    return left < 1 ? Math.ceil((1 - left) / perSecond) : 0;
  }
}

/** Answers a request that came too often, in a hosted project's words. */
export function tooMany(seconds) {
  return refusal(429, "over_request_rate_limit", "Request rate limit reached", { "retry-after": String(seconds) });
}

function refusal(status, code, msg, headers = {}) {
  return Response.json({ code: status, error_code: code, msg }, { status, headers: { "x-sb-error-code": code, ...headers } });
}

/** Who an address counts as: an IPv4 address, or the /64 network that one IPv6 customer has. */
export function networkOf(address) {
  if (typeof address !== "string") return "unknown";
  const mapped = address.replace(/^::ffff:/i, "");
  if (isIPv4(mapped)) return mapped;
  if (!isIPv6(address)) return "unknown";
  const [head, tail = ""] = address.split("%", 1)[0].split("::");
  const first = head ? head.split(":") : [];
  const last = tail ? tail.split(":") : [];
  const missing = address.includes("::") ? 8 - first.length - last.length : 0;
  const groups = [...first, ...Array(Math.max(0, missing)).fill("0"), ...last];
  return groups.slice(0, 4).map((group) => Number.parseInt(group, 16).toString(16)).join(":");
}
