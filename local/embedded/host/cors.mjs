// Lets pages of other origins call the embedded Supabase, as a hosted project does: any origin, no cookies. What a page
// may do is decided by the token that it sends, never by where it comes from.

const METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE";
const EXPOSED = "Content-Range, Content-Length, X-Supabase-Api-Version";
const PREFLIGHT_SECONDS = "600";
// Written by Lite for origins alone, without the headers that its own clients send.
const LITES_OWN = ["access-control-allow-credentials", "access-control-allow-headers", "access-control-allow-methods"];

/** The answer to a browser's question whether it may send a request; null for every other request. */
export function answerPreflight(request) {
  if (request.method !== "OPTIONS" || !request.headers.has("access-control-request-method")) return null;
  return new Response(null, {
    status: 204,
    headers: {
      "access-control-allow-origin": "*",
      "access-control-allow-methods": METHODS,
      "access-control-allow-headers": request.headers.get("access-control-request-headers") ?? "",
      "access-control-max-age": PREFLIGHT_SECONDS,
      vary: "access-control-request-headers",
    },
  });
}

/** The response as pages of other origins may read it, and as no browser takes for another type than it says. */
export function readableElsewhere(response) {
  const headers = new Headers(response.headers);
  for (const name of LITES_OWN) headers.delete(name);
  headers.set("access-control-allow-origin", "*");
  headers.set("access-control-expose-headers", EXPOSED);
  headers.set("x-content-type-options", "nosniff");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
