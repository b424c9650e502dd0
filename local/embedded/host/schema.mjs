// Makes the tables that a hosted project brings along, then our roles, helpers and grants.
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

/**
 * Runs Lite's own schema and `bootstrap.sql`, unless this very pair has been applied already.
 * Lite replaces auth.uid() and its like by versions that read older settings only, so the order matters.
 */
export async function prepareDatabase(app, connection, bootstrapFile) {
  const bootstrap = await readFile(bootstrapFile, "utf8");
  const lite = await readFile(fileURLToPath(import.meta.resolve("@supabase/lite")), "utf8");
  const fingerprint = createHash("sha256").update(lite).update(bootstrap).digest("hex");
  const sql = connection.driver;
  const [{ known }] = await sql`
    select to_regclass('concerto_local.applied') is not null
       and to_regclass('auth.users') is not null
       and to_regclass('storage.objects') is not null as known`;
  if (known) {
    const rows = await sql`select 1 from concerto_local.applied where fingerprint = ${fingerprint}`;
    if (rows.length > 0) return false;
  }
  await app.ensureSystemSchema();
  await sql.unsafe(bootstrap).simple();
  await sql`truncate concerto_local.applied`;
  await sql`insert into concerto_local.applied (fingerprint) values (${fingerprint})`;
  return true;
}
