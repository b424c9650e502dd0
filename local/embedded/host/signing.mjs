// Access tokens as new hosted projects sign them: ES256, with the public key at the JWKS address. Lite signs and checks
// HS256 with one secret only, so every token is signed anew on its way out and on its way in; its claims stay as they are.
import { CompactSign, compactVerify, decodeProtectedHeader, importJWK } from "jose";

const JWKS = "/auth/v1/.well-known/jwks.json";
const ISSUING = new Set(["/auth/v1/signup", "/auth/v1/token", "/auth/v1/verify"]);
const BEARER = /^bearer +/i;
const KNOWN_TOKENS = 2000;
const OF_LITE = Buffer.from(JSON.stringify({ alg: "HS256", typ: "JWT" })).toString("base64url");
const TOO_LONG = 16_384;

/** Signs what Lite issues with the project's key, and hands Lite what callers send as it signed it itself. */
export class Signing {
  #key;
  #publicKey;
  #publicJwk;
  #secret;
  #issuer;
  #known = new Map();

  /**
   * jwk: the private key (ES256, with `kid`) as JSON. secret: what Lite signs with; tokens of it stay valid until they
   * expire, as those of a previously used key do. issuer: the `iss` of the tokens.
   */
  static async open({ jwk, secret, issuer }) {
    const signing = new Signing();
    const { kty, crv, x, y, d, kid } = JSON.parse(jwk);
    signing.#publicJwk = { kty, crv, x, y, kid, alg: "ES256", use: "sig", key_ops: ["verify"] };
    signing.#key = await importJWK({ kty, crv, x, y, d }, "ES256");
    signing.#publicKey = await importJWK(signing.#publicJwk, "ES256");
    signing.#secret = new TextEncoder().encode(secret);
    signing.#issuer = issuer;
    return signing;
  }

  /** The key set, for whoever verifies tokens; null for any other request. */
  answerKeySet({ method }, { pathname }) {
    if (pathname !== JWKS || (method !== "GET" && method !== "HEAD")) return null;
    const body = method === "GET" ? JSON.stringify({ keys: [this.#publicJwk] }) : null;
    return new Response(body, { headers: { "content-type": "application/json", "cache-control": "public, max-age=600" } });
  }

  /** The request with the caller's token as Lite takes it; one that is none of ours becomes one that Lite refuses. */
  async incoming(request) {
    const authorization = request.headers.get("authorization") ?? "";
    if (!BEARER.test(authorization)) return request;
    const token = await this.#forLite(authorization.replace(BEARER, "").trim());
    if (token === null) return request;
    const headers = new Headers(request.headers);
    headers.set("authorization", `Bearer ${token}`);
    return new Request(request, { headers });
  }

  /** The response with tokens that Lite has issued signed by the project's key, in a body or in a fragment. */
  async outgoing(response, { pathname }) {
    const headers = new Headers(response.headers);
    const location = headers.get("location");
    if (location?.includes("#")) {
      const target = new URL(location);
      const fragment = new URLSearchParams(target.hash.slice(1));
      if (!fragment.has("access_token")) return response;
      fragment.set("access_token", await this.#forCallers(fragment.get("access_token")));
      target.hash = fragment.toString();
      headers.set("location", target.toString());
      return new Response(response.body, { status: response.status, headers });
    }
    if (!response.ok || !ISSUING.has(pathname)) return response;
    const body = await response.json();
    if (typeof body.access_token === "string") body.access_token = await this.#forCallers(body.access_token);
    headers.delete("content-length");
    return Response.json(body, { status: response.status, headers });
  }

  async #forCallers(token) {
    const { payload } = await compactVerify(token, this.#secret, { algorithms: ["HS256"] });
    const claims = { iss: this.#issuer, ...JSON.parse(new TextDecoder().decode(payload)) };
    const signer = new CompactSign(new TextEncoder().encode(JSON.stringify(claims)));
    return signer.setProtectedHeader({ alg: "ES256", kid: this.#publicJwk.kid, typ: "JWT" }).sign(this.#key);
  }

  async #forLite(token) {
    const known = this.#known.get(token);
    if (known) return known;
    const header = headerOf(token);
    if (token.length > TOO_LONG || header === null || header.alg === "HS256") return null;
    let payload;
    try {
      if (header.kid !== this.#publicJwk.kid) throw new Error("unknown key");
      ({ payload } = await compactVerify(token, this.#publicKey, { algorithms: ["ES256"] }));
    } catch {
      // Lite says of a wrong signature what a hosted project says of it, and of another algorithm something else.
      return token.replace(/^[^.]*/, OF_LITE);
    }
    // Whether it has expired is said by Lite, in the words of a hosted project.
    const translated = await new CompactSign(payload).setProtectedHeader({ alg: "HS256", typ: "JWT" }).sign(this.#secret);
    this.#known.set(token, translated);
    if (this.#known.size > KNOWN_TOKENS) this.#known.delete(this.#known.keys().next().value);
    return translated;
  }
}

/** The header of a token; null when there is none to read. */
function headerOf(token) {
  try {
    return decodeProtectedHeader(token);
  } catch {
    return null;
  }
}
