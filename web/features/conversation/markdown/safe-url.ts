const PROTOCOLS = new Set(["http:", "https:", "mailto:"]);

/**
 * The address that a link in an answer may lead to, or null. Only http, https and mailto pass; addresses without a
 * protocol would lead into this app, and those with a user name are made to look like others.
 */
export function safeHref(address: string): string | null {
  let url: URL;
  try {
    url = new URL(address);
  } catch {
    return null;
  }
  if (!PROTOCOLS.has(url.protocol) || url.username || url.password) return null;
  return url.href;
}
