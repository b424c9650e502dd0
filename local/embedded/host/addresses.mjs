// Which e-mail addresses there are, as the auth server of a hosted project sees it: those that a browser's form takes
// (https://html.spec.whatwg.org/#valid-e-mail-address), so no letters beyond ASCII, and a host needs no dot.
import { authRefusal } from "./refusals.mjs";

const AUTH = "/auth/v1/";
const LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?";
const ADDRESS = new RegExp(`^[a-zA-Z0-9.!#$%&'*+/=?^_\`{|}~-]+@${LABEL}(?:\\.${LABEL})*$`);
const MOST_CHARACTERS = 255;
const WITH_TEXTS = /^(?:POST|PUT) (?:signup|otp|magiclink|recover|resend|user|token)$/;
// Lite takes whatever stands there for a text.
const TEXTS = ["email", "password", "refresh_token"];
const JUDGED = new Set(["POST signup", "POST otp", "POST magiclink", "POST recover", "POST resend", "PUT user"]);

/** Refuses what is no address, before anything is done with it; null for anything else. */
export async function refuseAddress(request, { pathname }) {
  const route = `${request.method} ${pathname.slice(AUTH.length)}`;
  if (!pathname.startsWith(AUTH) || !WITH_TEXTS.test(route)) return null;
  const body = await request.clone().json().catch(() => null);
  const odd = TEXTS.find((name) => body?.[name] != null && typeof body[name] !== "string");
  if (odd) return authRefusal(400, "bad_json", `Could not parse request body as JSON: ${odd} must be a text`);
  if (!JUDGED.has(route)) return null;
  const email = body?.email;
  if (typeof email !== "string" || email === "" || (email.length <= MOST_CHARACTERS && ADDRESS.test(email))) return null;
  const msg = email.length > MOST_CHARACTERS ? "An email address is too long" : "Unable to validate email address: invalid format";
  return authRefusal(400, "validation_failed", msg);
}
