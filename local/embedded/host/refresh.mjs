// Refresh tokens that are used again, as the auth server of a hosted project forgives them: the parent of the active one
// always, as who has lost an answer asks again; any other within some seconds, as several tabs refresh at once. Whoever
// comes later ends all tokens of the sign-in.
import { authRefusal } from "./refusals.mjs";

const TOKEN = "/auth/v1/token";
const REUSE_SECONDS = 10;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Stands in front of Lite's exchange of refresh tokens. sql: its connection. */
export class Refresh {
  #sql;
  #underWay = new Map();

  constructor(sql) {
    this.#sql = sql;
  }

  /** The answer to an exchange; null for any other request. forward: hands it to Lite. */
  async answer(request, { pathname, searchParams }, forward) {
    if (request.method !== "POST" || pathname !== TOKEN || searchParams.get("grant_type") !== "refresh_token") return null;
    const { refresh_token: token } = (await request.clone().json().catch(() => null)) ?? {};
    if (typeof token !== "string" || token === "") return null;
    const known = UUID.test(token) ? await this.#find(token) : undefined;
    if (known === undefined) {
      return authRefusal(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found");
    }
    // One after the other for a sign-in: Lite would give each of several at once a token of its own.
    return this.#inTurn(known.session_id ?? token, () => this.#exchange(token, () => forward(request)));
  }

  async #exchange(token, forward) {
    const { id, session_id, revoked, is_recent } = (await this.#find(token)) ?? {};
    if (!revoked) return forward();
    const [active] = await this.#sql`
      select parent from auth.refresh_tokens where session_id = ${session_id} and not revoked
      order by created_at desc, id desc limit 1`;
    if (active?.parent === token) return forward(); // Lite gives the active one again
    if (active && is_recent) {
      // Lite then makes another one of it, which becomes its only child, and takes it back again.
      await this.#sql`
        with detached as (update auth.refresh_tokens set parent = null where parent = ${token})
        update auth.refresh_tokens set revoked = false where id = ${id}`;
      return forward();
    }
    await this.#sql`
      update auth.refresh_tokens set revoked = true, updated_at = now() where session_id = ${session_id} and not revoked`;
    return authRefusal(400, "refresh_token_already_used", "Invalid Refresh Token: Already Used");
  }

  async #find(token) {
    const [found] = await this.#sql`
      select id, session_id, revoked, updated_at > now() - make_interval(secs => ${REUSE_SECONDS}) as is_recent
      from auth.refresh_tokens where token = ${token}`;
    return found;
  }

  async #inTurn(key, work) {
    const turn = (this.#underWay.get(key) ?? Promise.resolve()).then(work, work);
    this.#underWay.set(key, turn);
    try {
      return await turn;
    } finally {
      if (this.#underWay.get(key) === turn) this.#underWay.delete(key);
    }
  }
}
