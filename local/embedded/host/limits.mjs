// How often one address may ask for what costs or can be guessed, as a hosted project limits it: buckets of tokens that
// hold a burst and fill again steadily (https://supabase.com/docs/guides/auth/rate-limits).
import { timingSafeEqual } from "node:crypto";
import { isIPv4, isIPv6 } from "node:net";
import { authRefusal } from "./refusals.mjs";

const BURST = 30;
const WINDOW_SECONDS = 300;
const MOST_BUCKETS = 20_000;
const AUTH = "/auth/v1/";
// What is read into memory whole, before anybody is asked who they are: the largest call of ours is 16 MiB of messages.
const MOST_BODY_BYTES = {
  [AUTH]: 64 * 1024,
  "/rest/v1/": 20 * 1024 * 1024,
  "/storage/v1/": 1024 * 1024,
};
// A file that is sent is written as it comes.
const FILE = /^\/storage\/v1\/object\/(?!(?:copy|move|sign|list|list-v2|info)(?:\/|$))[^/]+\/./;
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

/** Refuses a body that is larger than its part of the address takes, or does not say how large it is. Otherwise null. */
export function refuseLarge({ method, headers }, { pathname }) {
  if (FILE.test(pathname) && (method === "POST" || method === "PUT")) return null;
  const part = Object.keys(MOST_BODY_BYTES).find((prefix) => pathname.startsWith(prefix));
  if (part === undefined) return null;
  if (headers.has("transfer-encoding")) return authRefusal(411, "request_length_required", "Send the length of the body");
  if (Number(headers.get("content-length") ?? 0) <= MOST_BODY_BYTES[part]) return null;
  return authRefusal(413, "request_too_large", `The body is larger than ${MOST_BODY_BYTES[part]} bytes`);
}

/** Which kind of request it is, and so whose bucket it empties; null for one that is not limited. */
export function kindOf({ method }, { pathname, searchParams }) {
  if (!pathname.startsWith(AUTH)) return null;
  switch (`${method} ${pathname.slice(AUTH.length)}`) {
    case "POST token":
      return isExchange(searchParams.getAll("grant_type")) ? "token" : "password";
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

// Whatever is none of these is a password or a mistake. Of two grants Lite may see the other one than we do.
const isExchange = ([grant, ...others]) => others.length === 0 && ["refresh_token", "pkce"].includes(grant);

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
  return authRefusal(429, "over_request_rate_limit", "Request rate limit reached", { "retry-after": String(seconds) });
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
