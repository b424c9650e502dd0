// A log-in costs the same for every address. Lite makes a hash only of a password that it can compare with an account's,
// and tells before it does whether an account waits for its confirmation.
import bcrypt from "bcryptjs";
import { authRefusal } from "./refusals.mjs";
import { bannedRefusal } from "./sign-ins.mjs";

const TOKEN = "/auth/v1/token";

/** Makes up for the hash that Lite spares itself. `sql` is its connection, `cost` what its hashes cost. */
export class LogIn {
  #sql;
  #decoy;

  constructor({ sql, cost }) {
    this.#sql = sql;
    this.#decoy = `$2b$${String(cost).padStart(2, "0")}$${".".repeat(53)}`;
  }

  /** The refusal of a wrong password for an account that waits, and of one that is blocked; otherwise null, and the request goes to Lite. */
  async answerWrong(request, { pathname, searchParams }) {
    if (request.method !== "POST" || pathname !== TOKEN || !searchParams.getAll("grant_type").includes("password")) return null;
    const { email, password } = (await request.clone().json().catch(() => null)) ?? {};
    if (typeof email !== "string" || typeof password !== "string" || password === "") return null;
    const [account] = await this.#sql`
      select encrypted_password as hash, email_confirmed_at is not null as "isConfirmed",
        coalesce(banned_until > now(), false) as "isBanned"
      from auth.users where email = ${email.toLowerCase()}`;
    if (account?.hash && account.isConfirmed && !account.isBanned) return null; // Lite compares
    const isRight = await bcrypt.compare(password, account?.hash || this.#decoy);
    if (!account?.hash) return null;
    if (account.isBanned) return bannedRefusal();
    return isRight ? null : authRefusal(400, "invalid_credentials", "Invalid login credentials");
  }
}
