// Supabase's helper for servers that keep sign-ins in cookies, as a Next application uses it.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { createServerClient } from "@supabase/ssr";
import { feature, settings } from "./features.mjs";

const PASSWORD = "a long enough password";

/** A browser's cookies, which every request to the server brings along. */
class Jar {
  constructor(cookies = []) {
    this.cookies = new Map(cookies);
  }

  /** A client for one request. */
  request() {
    return createServerClient(settings.SUPABASE_URL, settings.SUPABASE_PUBLISHABLE_KEY, {
      cookies: {
        getAll: () => [...this.cookies].map(([name, value]) => ({ name, value })),
        setAll: (changes) => {
          for (const { name, value, options } of changes) {
            if (options.maxAge === 0) this.cookies.delete(name);
            else this.cookies.set(name, value);
          }
        },
      },
    });
  }
}

function ok({ data, error }) {
  assert.equal(error, null, error && `${error.code}: ${error.message}`);
  return data;
}

const jar = new Jar();
const email = `ssr-${randomUUID()}@example.com`;

await feature("a sign-up is known to the next request", async () => {
  const bio = "ü".repeat(3000); // more than one cookie holds
  ok(await jar.request().auth.signUp({ email, password: PASSWORD, options: { data: { bio } } }));
  assert.ok(jar.cookies.size > 1);
  const { user } = ok(await jar.request().auth.getUser());
  assert.deepEqual([user.email, user.user_metadata.bio], [email, bio]);
  const { claims } = ok(await jar.request().auth.getClaims());
  assert.deepEqual([claims.sub, claims.aal], [user.id, "aal1"]);
});

await feature("rows are read as the person of the cookies", async () => {
  const supabase = jar.request();
  ok(await supabase.from("sessions").insert({ name: "by cookie" }));
  assert.deepEqual(ok(await jar.request().from("sessions").select("name")), [{ name: "by cookie" }]);
  const { data } = await new Jar().request().from("sessions").select("name");
  assert.equal(data?.length ?? 0, 0);
});

await feature("requests that refresh at once stay signed in", async () => {
  const { session } = ok(await jar.request().auth.getSession());
  // Each brings the cookies that the browser had when it was sent.
  const jars = [1, 2, 3].map(() => new Jar(jar.cookies));
  const refresh = (each) => each.request().auth.refreshSession({ refresh_token: session.refresh_token });
  const refreshed = await Promise.all(jars.map(refresh));
  assert.equal(new Set(refreshed.map((answer) => ok(answer).session.refresh_token)).size, 1);
  for (const each of jars) assert.equal(ok(await each.request().auth.getUser()).user.email, email);
  jar.cookies = jars[2].cookies;
});

await feature("a log-out leaves no cookie and no sign-in", async () => {
  const { session } = ok(await jar.request().auth.getSession());
  const { error } = await jar.request().auth.signOut();
  assert.equal(error, null);
  assert.equal(jar.cookies.size, 0);
  const late = await new Jar().request().auth.refreshSession({ refresh_token: session.refresh_token });
  assert.equal(late.error.code, "refresh_token_not_found");
});
