// Sign-ins that have ended: what Lite lets pass and a hosted project does not.
import { asCaller } from "./callers.mjs";
import { authRefusal } from "./refusals.mjs";

const AUTH = "/auth/v1/";
const STATUS = /^PT(\d{3})$/;
// What Lite does for whoever has a token that has not expired.
const OWN_ACCOUNT = new Set([`${AUTH}user`, `${AUTH}reauthenticate`]);
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const FUNCTION = /^[a-z_]+\.[a-z_]+$/;
const SETTING = "pgrst.db_pre_request=";

/** The refusal of whoever signs in to an account that is blocked. */
export const bannedRefusal = () => authRefusal(400, "user_banned", "User is banned");

/** Asks the database about the sign-in behind a request, and ends the others when a password changes. */
export class SignIns {
  #sql;
  #callers;
  #question;

  /** sql: Lite's connection. callers: reads whose tokens requests carry. */
  constructor({ sql, callers }) {
    this.#sql = sql;
    this.#callers = callers;
  }

  /** Forgets which function is run before each request; a migration may have set another. */
  forget() {
    this.#question = undefined;
  }

  /**
   * The refusal of a request whose sign-in has ended, as the function says that the role `authenticator` names for
   * PostgREST; null for any other. Lite's auth part looks by itself, but at no block. Storage, which a hosted project guards by policies
   * alone, is guarded here too, as Lite does not tell policies all of a token.
   */
  async refuse(request, { pathname }) {
    if (pathname.startsWith(AUTH)) return null;
    const error = await this.#refusalOf(await this.#callers.claimsOf(request));
    if (error === null) return null;
    const { code, message, detail: details = null, hint = null } = error;
    return Response.json({ code, details, hint, message }, { status: Number(STATUS.exec(code)[1]) });
  }

  /** Whether the sign-in of some claims has ended. */
  async hasEnded(claims) {
    return (await this.#refusalOf(claims)) !== null;
  }

  /** What the database raises about a sign-in, null where it stands. */
  async #refusalOf(claims) {
    if (claims?.role !== "authenticated") return null;
    this.#question ??= this.#findQuestion();
    const question = await this.#question.catch((error) => {
      this.forget();
      throw error;
    });
    if (question === null) return null;
    try {
      await asCaller(this.#sql, claims, "read only", (sql) => sql.unsafe(`select ${question}()`));
      return null;
    } catch (error) {
      if (!STATUS.test(error.code)) throw error;
      return error;
    }
  }

  /** The refusal of whoever asks for their account or changes it while it is blocked or deleted; null for any other. */
  async refuseBlocked(request, { pathname }) {
    if (!OWN_ACCOUNT.has(pathname)) return null;
    const claims = await this.#callers.claimsOf(request);
    if (!UUID.test(claims?.sub)) return null;
    const [account] = await this.#sql`
      select coalesce(banned_until > now(), false) as "isBanned", deleted_at is not null as "isDeleted"
      from auth.users where id = ${claims.sub}`;
    if (account?.isBanned) return authRefusal(403, "user_banned", "User is banned");
    return account?.isDeleted ? authRefusal(403, "user_not_found", "User from sub claim in JWT does not exist") : null;
  }

  /** The refusal of new tokens for an account that is blocked, which Lite grants and Supabase Auth does not. */
  async refuseBanned(request, { pathname }, response) {
    if (request.method !== "POST" || !pathname.startsWith(AUTH) || !response.ok) return response;
    const body = await response.clone().json().catch(() => null);
    if (typeof body?.access_token !== "string") return response;
    const [account] = await this.#sql`
      select coalesce(banned_until > now(), false) as "isBanned" from auth.users where id = ${body.user?.id ?? null}`;
    if (!account?.isBanned) return response;
    return bannedRefusal();
  }

  /** Ends a person's other sign-ins once their password has been changed, as Supabase Auth does; returns the response. */
  async endOthers(request, { pathname }, forward) {
    if (request.method !== "PUT" || pathname !== `${AUTH}user`) return forward(request);
    const [claims, body] = [await this.#callers.claimsOf(request), await request.clone().json().catch(() => null)];
    const response = await forward(request);
    if (response.ok && claims !== null && typeof body?.password === "string") {
      // Refresh tokens go with their sign-ins.
      await this.#sql`
        delete from auth.sessions
        where user_id = ${claims.sub} and id is distinct from ${claims.session_id ?? null}::uuid`;
    }
    return response;
  }

  async #findQuestion() {
    const settings = await this.#sql`
      select s.setting from pg_db_role_setting as d cross join unnest(d.setconfig) as s (setting)
      where d.setrole = to_regrole('authenticator') and starts_with(s.setting, ${SETTING})`;
    const name = settings[0]?.setting.slice(SETTING.length);
    return name !== undefined && FUNCTION.test(name) ? name : null;
  }
}
