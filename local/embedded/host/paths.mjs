// Addresses of data and files in one spelling. Lite decodes what stands percent-encoded, and what stands before Lite knows
// routes by their plain names, so a letter that needs no encoding is written as it is before anybody looks.

const DATA = /^\/(?:storage|rest)\/v1\//;
const ENCODED = /%[0-9a-f]{2}/gi;
const PLAIN = /[\w.~-]/;

/** The request with its path in that spelling: as RFC 3986 has it, the same address. */
export function inPlainLetters(request) {
  const url = new URL(request.url);
  if (!DATA.test(url.pathname)) return request;
  const plain = url.pathname.replace(ENCODED, (encoded) => {
    const sign = String.fromCharCode(Number.parseInt(encoded.slice(1), 16));
    return PLAIN.test(sign) ? sign : encoded;
  });
  if (plain === url.pathname) return request;
  url.pathname = plain;
  return new Request(url, request);
}
