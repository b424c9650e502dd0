// Who sends a request, and what the database does in their name.
import { compactVerify } from "jose";

const BEARER = /^bearer +/i;

/** Reads tokens and keys. secret: what the tokens are signed with that are handed to Lite. */
export class Callers {
  #secret;
  #roles;

  constructor({ secret, publishableKey, secretKey }) {
    this.#secret = new TextEncoder().encode(secret);
    this.#roles = new Map([[publishableKey, "anon"], [secretKey, "service_role"]]);
  }

  /** The claims of a request's token; null where it has none that is ours, which Lite then refuses. */
  async claimsOf({ headers }) {
    const authorization = headers.get("authorization") ?? "";
    if (!BEARER.test(authorization)) return null;
    return this.read(authorization.replace(BEARER, "").trim());
  }

  /** The claims by which policies judge a request: those of its token, or the role of its key. */
  async judgedClaimsOf(request) {
    const claims = await this.claimsOf(request);
    return claims ?? { role: this.#roles.get(request.headers.get("apikey")) ?? "anon" };
  }

  /** The claims of a token of ours, null for any other. */
  async read(token) {
    try {
      const { payload, protectedHeader } = await compactVerify(token, this.#secret, { algorithms: ["HS256"] });
      const claims = JSON.parse(new TextDecoder().decode(payload));
      return protectedHeader.alg === "HS256" && claims.exp > Date.now() / 1000 ? claims : null;
    } catch {
      return null;
    }
  }
}

/** Does work(sql) in a transaction, "read only" or "read write", as the role and with the claims of a caller. */
export function asCaller(sql, claims, mode, work) {
  const told = JSON.stringify(claims);
  return sql.begin(mode, async (own) => {
    await own`
      select set_config('request.jwt.claims', ${told}, true), set_config('request.jwt.claim.sub', ${claims.sub ?? ""}, true),
        set_config('request.jwt.claim.role', ${claims.role}, true), set_config('role', ${claims.role}, true)`;
    return work(own);
  });
}
