// The connection to Postgres, with the corrections that make it answer as a hosted project does.
import { createPostgresConnection } from "./lite.mjs";

const timestamp = (text) => (text == null ? text : text.replace(" ", "T"));
// Postgres writes "+00", clients expect "+00:00"; going through Date would cut microseconds.
const timestampWithZone = (text) => timestamp(text)?.replace(/([+-]\d\d)$/, "$1:00");

const json = {
  parse: (text) => JSON.parse(text),
  // Lite hands over text that is JSON already; encoding it again would store a string instead of an object.
  serialize: (value) => {
    if (typeof value === "string" && /^\s*[{[]/.test(value)) {
      try {
        JSON.parse(value);
        return value;
      } catch {
        return JSON.stringify(value);
      }
    }
    return JSON.stringify(value);
  },
};

const same = (value) => value;

/**
 * Opens a pool of `max` connections. Every request then runs as anon, authenticated or service_role, never as the login
 * role.
 */
export function openConnection(url, max) {
  const connection = createPostgresConnection({
    url,
    postgresOptions: {
      max,
      connect_timeout: 5,
      backoff: (attempt) => Math.min(0.1 * 2 ** attempt, 1), // seconds, while Postgres is away
      onnotice: () => {},
      connection: { application_name: "supabase" },
      types: {
        timestamptz: { to: 1184, from: [1184], serialize: same, parse: timestampWithZone },
        timestamp: { to: 1114, from: [1114], serialize: same, parse: timestamp },
        json: { to: 114, from: [114], ...json },
        jsonb: { to: 3802, from: [3802], ...json },
      },
    },
  });
  // Otherwise Lite decides at its first request whether roles are switched at all, and grants everything to everybody.
  connection.rlsState = "active";
  return connection;
}
