// Access tokens as new hosted projects have them: with all claims of Supabase Auth, signed with ES256, the public key at the
// JWKS address. Lite makes some of the claims, and signs and checks HS256 with one secret only, so every token is signed
// anew on its way out and on its way in.
import { CompactSign, compactVerify, decodeProtectedHeader, importJWK } from "jose";

const JWKS = "/auth/v1/.well-known/jwks.json";
const TOKEN = "/auth/v1/token";
const ISSUING = new Set(["/auth/v1/signup", TOKEN, "/auth/v1/verify"]);
// How somebody has signed in, by address or by grant, as Supabase Auth calls it.
const METHODS = { "/auth/v1/signup": "password", "/auth/v1/verify": "otp", password: "password", pkce: "oauth" };
// As the auth server of a hosted project reads it: one space.
const BEARER = /^[Bb]earer (\S+)$/;
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
  #sql;
  #known = new Map();

  /**
   * jwk: the private key (ES256, with `kid`) as JSON; empty: tokens are signed with the secret. secret: what Lite signs
   * with; tokens of it stay valid until they expire, as those of a previously used key do. issuer: the `iss` of the
   * tokens. sql: Lite's connection, which knows the rest of the claims.
   */
  static async open({ jwk, secret, issuer, sql }) {
    const signing = new Signing();
    signing.#secret = new TextEncoder().encode(secret);
    signing.#issuer = issuer;
    signing.#sql = sql;
    if (!jwk) return signing;
    const { kty, crv, x, y, d, kid } = JSON.parse(jwk);
    signing.#publicJwk = { kty, crv, x, y, kid, alg: "ES256", use: "sig", key_ops: ["verify"] };
    signing.#key = await importJWK({ kty, crv, x, y, d }, "ES256");
    signing.#publicKey = await importJWK(signing.#publicJwk, "ES256");
    return signing;
  }

  /** The key set, for whoever verifies tokens; null for any other request. */
  answerKeySet({ method }, { pathname }) {
    if (!this.#key || pathname !== JWKS || (method !== "GET" && method !== "HEAD")) return null;
    const body = method === "GET" ? JSON.stringify({ keys: [this.#publicJwk] }) : null;
    return new Response(body, { headers: { "content-type": "application/json", "cache-control": "public, max-age=600" } });
  }

  /** The request with the caller's token as Lite takes it; one that is none of ours becomes one that Lite refuses. */
  async incoming(request) {
    if (!this.#key) return request;
    const authorization = request.headers.get("authorization") ?? "";
    const given = BEARER.exec(authorization)?.[1];
    if (given === undefined) return request;
    const token = await this.#forLite(given);
    if (token === null) return request;
    const headers = new Headers(request.headers);
    headers.set("authorization", `Bearer ${token}`);
    return new Request(request, { headers });
  }

  /** The response with tokens that Lite has issued made complete and signed, in a body or in a fragment. */
  async outgoing(response, { pathname, searchParams }) {
    const headers = new Headers(response.headers);
    const location = headers.get("location");
    if (location?.includes("#")) {
      const target = new URL(location);
      const fragment = new URLSearchParams(target.hash.slice(1));
      if (!fragment.has("access_token")) return response;
      fragment.set("access_token", await this.#forCallers(fragment.get("access_token"), "oauth"));
      target.hash = fragment.toString();
      headers.set("location", target.toString());
      return new Response(response.body, { status: response.status, headers });
    }
    if (!response.ok || !ISSUING.has(pathname)) return response;
    const body = await response.json();
    const method = pathname === TOKEN ? METHODS[searchParams.get("grant_type")] : METHODS[pathname];
    if (typeof body.access_token === "string") body.access_token = await this.#forCallers(body.access_token, method);
    headers.delete("content-length");
    return Response.json(body, { status: response.status, headers });
  }

  async #forCallers(token, method) {
    const { payload } = await compactVerify(token, this.#secret, { algorithms: ["HS256"] });
    const ofLite = JSON.parse(new TextDecoder().decode(payload));
    const claims = { iss: this.#issuer, ...ofLite, ...(await this.#rest(ofLite, method)) };
    const signer = new CompactSign(new TextEncoder().encode(JSON.stringify(claims)));
    if (!this.#key) return signer.setProtectedHeader({ alg: "HS256", typ: "JWT" }).sign(this.#secret);
    return signer.setProtectedHeader({ alg: "ES256", kid: this.#publicJwk.kid, typ: "JWT" }).sign(this.#key);
  }

  /** What Lite's tokens lack. method: how somebody has just signed in, which is noted; undefined in an exchange. */
  async #rest({ sub, session_id: session }, method) {
    if (method !== undefined) {
      await this.#sql`
        insert into auth.mfa_amr_claims (id, session_id, created_at, updated_at, authentication_method)
        values (gen_random_uuid(), ${session}, now(), now(), ${method})
        on conflict (session_id, authentication_method) do update set updated_at = excluded.updated_at`;
    }
    const [known] = await this.#sql`
      select coalesce(u.phone, '') as phone, coalesce(u.raw_app_meta_data, '{}') as app_metadata,
        coalesce(u.raw_user_meta_data, '{}') as user_metadata, coalesce(s.aal, 'aal1') as aal, u.is_anonymous,
        (
          select coalesce(jsonb_agg(jsonb_build_object(
            'method', m.authentication_method, 'timestamp', extract(epoch from m.updated_at)::bigint
          ) order by m.updated_at desc), '[]') from auth.mfa_amr_claims as m where m.session_id = s.id
        ) as amr
      from auth.users as u left join auth.sessions as s on s.id = ${session} where u.id = ${sub}`;
    return known ?? {};
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
