/** What a mail's link or a sign-in with a provider brings along in the address of the page it leads to. */

export type LinkResult =
  | { kind: "tokens"; accessToken: string; refreshToken: string; type: string | null }
  | { kind: "error"; code: string; description: string | null }
  | { kind: "none" };

const SECRET = ["access_token", "refresh_token", "expires_in", "expires_at", "token_type", "type", "provider_token"];
const FAILURE = ["error", "error_code", "error_description"];

/** Reads an address. Tokens come in its fragment only; failures in the fragment or the query. */
export function readLink(address: URL): LinkResult {
  const fragment = new URLSearchParams(address.hash.slice(1));
  for (const values of [fragment, address.searchParams]) {
    const code = values.get("error_code") || values.get("error");
    if (code) return { kind: "error", code, description: values.get("error_description") };
  }
  const accessToken = fragment.get("access_token");
  const refreshToken = fragment.get("refresh_token");
  if (!accessToken || !refreshToken) return { kind: "none" };
  return { kind: "tokens", accessToken, refreshToken, type: fragment.get("type") };
}

/** The address without what `readLink` reads. */
export function withoutLink(address: URL): string {
  const query = new URLSearchParams(address.search);
  for (const name of [...SECRET, ...FAILURE]) query.delete(name);
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
