/** What a mail's link or a sign-in with a provider brings along in the address of the page it leads to. */
import type { OtpType } from "@/lib/api/types";

export type LinkResult =
  | {
      kind: "tokens";
      accessToken: string;
      refreshToken: string;
      type: string | null;
      /** What this app gave to the sign-in when it began; anybody can write anything there. */
      mark: string | null;
    }
  | {
      kind: "one-time";
      tokenHash: string;
      type: OtpType;
      /** Whom the link says that it is for; anybody can write an address. */
      email: string | null;
    }
  /** Half of a change of address: the other address has to agree too. */
  | { kind: "half" }
  | { kind: "error"; code: string; description: string | null }
  | { kind: "none" };

const SECRET = ["access_token", "refresh_token", "expires_in", "expires_at", "token_type", "type", "provider_token"];
const ONE_TIME = ["token_hash", "email", "code", "mark", "message"];
const FAILURE = ["error", "error_code", "error_description"];
const TYPES: ReadonlySet<string> = new Set<OtpType>([
  "signup",
  "recovery",
  "magiclink",
  "invite",
  "email_change",
  "email",
]);

/** What a mail was sent for, where a text names one. */
export function otpTypeOf(text: string | null): OtpType | null {
  return text !== null && TYPES.has(text) ? (text as OtpType) : null;
}

/**
 * Reads an address. Tokens come in its fragment only, which servers never see; what is worth nothing by itself also in the
 * query. A `code` belongs to a sign-in that this app did not begin: its own ones end at the gateway, which knows them.
 */
export function readLink(address: URL): LinkResult {
  const fragment = new URLSearchParams(address.hash.slice(1));
  for (const values of [fragment, address.searchParams]) {
    const code = values.get("error_code") || values.get("error");
    if (code) return { kind: "error", code, description: values.get("error_description") };
  }
  const accessToken = fragment.get("access_token");
  const refreshToken = fragment.get("refresh_token");
  if (accessToken && refreshToken) {
    const mark = address.searchParams.get("mark");
    return { kind: "tokens", accessToken, refreshToken, type: fragment.get("type"), mark };
  }
  for (const values of [fragment, address.searchParams]) {
    const tokenHash = values.get("token_hash");
    const type = otpTypeOf(values.get("type"));
    if (tokenHash && type) return { kind: "one-time", tokenHash, type, email: values.get("email") };
  }
  if (address.searchParams.has("code")) return { kind: "error", code: "foreign_code", description: null };
  if (fragment.has("message")) return { kind: "half" };
  return { kind: "none" };
}

/** The address without what `readLink` reads. */
export function withoutLink(address: URL): string {
  const query = new URLSearchParams(address.search);
  for (const name of [...SECRET, ...ONE_TIME, ...FAILURE]) query.delete(name);
  const text = query.toString();
  return address.pathname + (text ? `?${text}` : "");
}

/**
 * Takes the result out of this page's address, so that it stays neither in sight nor in the history, and works once.
 */
export function takeLink(): LinkResult {
  const address = new URL(window.location.href);
  const result = readLink(address);
  if (result.kind === "none") return result;
  const clean = withoutLink(address);
  window.history.replaceState(window.history.state, "", clean);
  // Once more when the router has taken the history over, or it would bring the old address back.
  setTimeout(() => {
    const isSamePage = window.location.pathname === address.pathname;
    if (isSamePage) window.history.replaceState(null, "", clean);
  }, 0);
  return result;
}
