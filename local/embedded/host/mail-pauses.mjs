// How soon an address gets the next mail of a kind, as a hosted project has it. An address that nobody has registered is
// answered the same, or the pause would tell which ones are.
import { decodeJwt } from "jose";
import { authRefusal } from "./refusals.mjs";

const MOST_ADDRESSES = 20_000;
const AUTH = "/auth/v1/";

/** Notes when which address got a mail. seconds: the pause between two; 0 for none. */
export class MailPauses {
  #seconds;
  #sent = new Map();

  constructor(seconds) {
    this.#seconds = seconds;
  }

  /**
   * Answers a request that has a mail sent to somebody, unless it comes too soon. answer: does so; where that fails, no
   * mail was sent and the address waits for nothing.
   */
  async between(request, { pathname }, answer) {
    const key = this.#seconds > 0 && pathname.startsWith(AUTH) ? await keyOf(request, pathname.slice(AUTH.length)) : null;
    if (key === null) return answer();
    const now = performance.now() / 1000;
    const left = (this.#sent.get(key) ?? Number.NEGATIVE_INFINITY) + this.#seconds - now;
    if (left > 0) return tooSoon(Math.ceil(left));
    // Before the mail is sent, or of many requests at once each would send one.
    const before = this.#sent.get(key);
    this.#note(key, now);
    const response = await answer();
    if (!response.ok) this.#note(key, before);
    return response;
  }

  #note(key, moment) {
    this.#sent.delete(key);
    if (moment !== undefined) this.#sent.set(key, moment);
    if (this.#sent.size > MOST_ADDRESSES) this.#sent.delete(this.#sent.keys().next().value);
  }
}

/** Which mail a request asks for, and for whom; null for one that asks for none. */
async function keyOf(request, route) {
  switch (`${request.method} ${route}`) {
    case "POST recover":
    case "POST otp":
    case "POST magiclink":
      return keyOfBody(request, () => "recovery");
    case "POST resend":
      return keyOfBody(request, ({ type }) => `resend ${type}`);
    case "PUT user":
      return keyOfBody(request, () => "change");
    case "GET reauthenticate":
      return `reauthentication ${subjectOf(request)}`;
    default:
      return null;
  }
}

async function keyOfBody(request, kindOf) {
  const body = await request.clone().json().catch(() => null);
  return typeof body?.email === "string" ? `${kindOf(body)} ${body.email.trim().toLowerCase()}` : null;
}

// Whether it is a true one shows when the request is answered.
function subjectOf({ headers }) {
  try {
    return decodeJwt((headers.get("authorization") ?? "").replace(/^bearer +/i, "")).sub;
  } catch {
    return "nobody";
  }
}

function tooSoon(seconds) {
  const msg = `For security purposes, you can only request this after ${seconds} seconds.`;
  return authRefusal(429, "over_email_send_rate_limit", msg, { "retry-after": String(seconds) });
}
