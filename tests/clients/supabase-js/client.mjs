// Supabase's own client for JavaScript, against the embedded Supabase as against a hosted project.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { createClient } from "@supabase/supabase-js";
import { feature, settings } from "./features.mjs";

const PASSWORD = "a long enough password";
const options = { auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false } };
const connect = (key = settings.SUPABASE_PUBLISHABLE_KEY) => createClient(settings.SUPABASE_URL, key, options);
const newAddress = () => `js-${randomUUID()}@example.com`;
const claimsOf = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url"));

/** The data of an answer that must be one. */
function ok({ data, error }) {
  assert.equal(error, null, error && `${error.code}: ${error.message}`);
  return data;
}

/** Check that an answer is this error of the auth server. */
function refused({ error }, code, status) {
  assert.ok(error, `nothing was refused with ${code}`);
  assert.deepEqual([error.code, error.status], [code, status], error.message);
  return error;
}

/** Check that an access token's sign-in has ended; the client hides the auth server's own code for it. */
async function ended(token) {
  const { error } = await connect().auth.getUser(token);
  assert.equal(error?.name, "AuthSessionMissingError");
}

/** The last mail to an address. */
async function mailTo(address) {
  const folder = path.join(settings.CONCERTO_HOME, "mail");
  for (const name of (await readdir(folder)).filter((each) => !each.startsWith(".")).sort().reverse()) {
    const mail = JSON.parse(await readFile(path.join(folder, name), "utf8"));
    if (mail.to === address) return mail;
  }
  return assert.fail(`no mail to ${address}`);
}

/** A client of a person of its own. */
async function member() {
  const supabase = connect();
  const { session, user } = ok(await supabase.auth.signUp({ email: newAddress(), password: PASSWORD }));
  return { supabase, session, user };
}

await feature("auth: sign-up, with metadata and claims as a hosted project's", async () => {
  const supabase = connect();
  const email = newAddress();
  const signUp = { email, password: PASSWORD, options: { data: { display_name: "Ada" } } };
  const { session, user } = ok(await supabase.auth.signUp(signUp));
  assert.equal(user.user_metadata.display_name, "Ada");
  const claims = claimsOf(session.access_token);
  assert.equal(claims.iss, `${settings.SUPABASE_URL}/auth/v1`);
  assert.deepEqual([claims.sub, claims.email, claims.phone], [user.id, email, ""]);
  assert.deepEqual([claims.aud, claims.role, claims.aal, claims.is_anonymous], ["authenticated", "authenticated", "aal1", false]);
  assert.deepEqual(claims.app_metadata, { provider: "email", providers: ["email"] });
  assert.equal(claims.user_metadata.display_name, "Ada");
  assert.equal(claims.amr[0].method, "password");
  assert.ok(Math.abs(claims.amr[0].timestamp - claims.iat) < 60);
  assert.match(claims.session_id, /^[0-9a-f-]{36}$/);
  const { claims: verified, header } = ok(await supabase.auth.getClaims(session.access_token));
  assert.deepEqual([verified.sub, header.alg], [user.id, "ES256"]);
});

await feature("auth: log-in, and who gets in wrongly", async () => {
  const { user } = await member();
  const supabase = connect();
  const { session } = ok(await supabase.auth.signInWithPassword({ email: user.email, password: PASSWORD }));
  assert.equal(claimsOf(session.access_token).sub, user.id);
  refused(await connect().auth.signInWithPassword({ email: user.email, password: "wrong" }), "invalid_credentials", 400);
  refused(await connect().auth.signInWithPassword({ email: newAddress(), password: PASSWORD }), "invalid_credentials", 400);
  refused(await connect().auth.signUp({ email: user.email, password: PASSWORD }), "user_already_exists", 422);
  refused(await connect().auth.signUp({ email: newAddress(), password: "short" }), "weak_password", 422);
});

await feature("auth: addresses are judged as a hosted project judges them", async () => {
  const name = randomUUID();
  ok(await connect().auth.signUp({ email: `${name}@b`, password: PASSWORD }));
  ok(await connect().auth.signInWithPassword({ email: `${name}@b`, password: PASSWORD }));
  for (const email of [`ü${name}@example.com`, `${name}@exämple.com`, `${name}@-b.com`, `${name}@b..com`]) {
    refused(await connect().auth.signUp({ email, password: PASSWORD }), "validation_failed", 400);
    refused(await connect().auth.signInWithOtp({ email }), "validation_failed", 400);
    refused(await connect().auth.resetPasswordForEmail(email), "validation_failed", 400);
  }
});

await feature("auth: refresh, and a refresh token that is used again", async () => {
  const { supabase, session: first } = await member();
  const refresh = async (token) => ok(await connect().auth.refreshSession({ refresh_token: token })).session;
  const second = await refresh(first.refresh_token);
  assert.notEqual(second.refresh_token, first.refresh_token);
  const claims = claimsOf(second.access_token);
  assert.equal(claims.session_id, claimsOf(first.access_token).session_id);
  assert.deepEqual(claims.amr, claimsOf(first.access_token).amr);
  // Who has lost the answer asks again and is given the same one.
  assert.equal((await refresh(first.refresh_token)).refresh_token, second.refresh_token);
  const third = await refresh(second.refresh_token);
  // Within the reuse interval an older one is taken too.
  const fourth = await refresh(first.refresh_token);
  ok(await supabase.auth.getUser(fourth.access_token));
  ok(await supabase.auth.getUser(third.access_token));
  const many = await Promise.all(Array.from({ length: 5 }, () => refresh(fourth.refresh_token)));
  assert.equal(new Set(many.map((session) => session.refresh_token)).size, 1);
  for (const unknown of [randomUUID(), "no-token-at-all"]) {
    refused(await connect().auth.refreshSession({ refresh_token: unknown }), "refresh_token_not_found", 400);
  }
});

await feature("auth: one-time codes and links", async () => {
  const { user } = await member();
  const supabase = connect();
  ok(await supabase.auth.signInWithOtp({ email: user.email, options: { shouldCreateUser: false } }));
  const mail = await mailTo(user.email);
  const wrong = mail.code === "000000" ? "111111" : "000000";
  const code = await connect().auth.verifyOtp({ email: user.email, token: wrong, type: "email" });
  assert.equal(refused(code, "otp_expired", 403).message, "Token has expired or is invalid");
  const link = await connect().auth.verifyOtp({ token_hash: "0".repeat(56), type: "email" });
  assert.equal(refused(link, "otp_expired", 403).message, "Email link is invalid or has expired");
  const { session } = ok(await supabase.auth.verifyOtp({ email: user.email, token: mail.code, type: "email" }));
  assert.equal(claimsOf(session.access_token).amr[0].method, "otp");
  const again = await connect().auth.verifyOtp({ email: user.email, token: mail.code, type: "email" });
  refused(again, "otp_expired", 403);
  refused(await connect().auth.signInWithOtp({ email: newAddress(), options: { shouldCreateUser: false } }), "otp_disabled", 422);
  ok(await connect().auth.resetPasswordForEmail(user.email));
  const hash = new URLSearchParams((await mailTo(user.email)).links[0].split("#")[1]).get("token_hash");
  assert.ok(ok(await connect().auth.verifyOtp({ token_hash: hash, type: "recovery" })).session);
});

await feature("auth: a change of the account", async () => {
  const { supabase, user } = await member();
  const { user: changed } = ok(await supabase.auth.updateUser({ data: { display_name: "Grace" } }));
  assert.equal(changed.user_metadata.display_name, "Grace");
  refused(await supabase.auth.updateUser({ password: PASSWORD }), "same_password", 422);
  ok(await supabase.auth.updateUser({ password: `${PASSWORD}!` }));
  ok(await connect().auth.signInWithPassword({ email: user.email, password: `${PASSWORD}!` }));
  const { session } = ok(await supabase.auth.refreshSession());
  assert.equal(claimsOf(session.access_token).user_metadata.display_name, "Grace");
});

await feature("auth: log-outs of each scope", async () => {
  const { supabase: one, user } = await member();
  const others = await Promise.all(
    [1, 2].map(async () => {
      const supabase = connect();
      const { session } = ok(await supabase.auth.signInWithPassword({ email: user.email, password: PASSWORD }));
      return { supabase, token: session.access_token };
    }),
  );
  ok({ data: null, ...(await others[0].supabase.auth.signOut({ scope: "local" })) });
  await ended(others[0].token);
  ok(await one.auth.getUser(others[1].token));
  ok({ data: null, ...(await one.auth.signOut({ scope: "others" })) });
  await ended(others[1].token);
  const { session } = ok(await one.auth.getSession());
  ok(await one.auth.getUser(session.access_token));
  // Who names no scope means all sign-ins.
  const { session: last } = ok(await connect().auth.signInWithPassword({ email: user.email, password: PASSWORD }));
  const headers = { apikey: settings.SUPABASE_PUBLISHABLE_KEY, authorization: `Bearer ${last.access_token}` };
  const answer = await fetch(`${settings.SUPABASE_URL}/auth/v1/logout`, { method: "POST", headers });
  assert.equal(answer.status, 204);
  await ended(session.access_token);
});

await feature("auth: what is not part of it says so", async () => {
  const { supabase } = await member();
  const parts = {
    enroll: () => supabase.auth.mfa.enroll({ factorType: "totp" }),
    challenge: () => supabase.auth.mfa.challenge({ factorId: randomUUID() }),
    anonymous: () => connect().auth.signInAnonymously(),
    phone: () => connect().auth.signInWithOtp({ phone: "+4912345678" }),
    "id token": () => connect().auth.signInWithIdToken({ provider: "google", token: "a.b.c" }),
    sso: () => connect().auth.signInWithSSO({ domain: "example.com" }),
    "linked identity": () => supabase.auth.linkIdentity({ provider: "github" }),
    "admin, as somebody": () => connect().auth.admin.listUsers(),
    admin: () => connect(settings.SUPABASE_SECRET_KEY).auth.admin.listUsers(),
    "admin, a link": () => connect(settings.SUPABASE_SECRET_KEY).auth.admin.generateLink({ type: "recovery", email: "a@b.c" }),
  };
  for (const [name, call] of Object.entries(parts)) {
    const { error } = await call();
    assert.ok(error?.code, `${name}: ${error?.name} ${error?.status} ${error?.message}`);
    assert.match(error.message, /disabled|not part of the embedded Supabase|not enabled|User not allowed|Bearer/, name);
    assert.ok(error.status >= 400 && error.status < 500, `${name}: ${error.status}`);
  }
  assert.deepEqual(ok(await supabase.auth.mfa.listFactors()).all, []);
  assert.equal(ok(await supabase.auth.mfa.getAuthenticatorAssuranceLevel()).currentLevel, "aal1");
  assert.equal(ok(await supabase.auth.getUserIdentities()).identities.length, 1);
});

await feature("rest: rows are written, chosen, filtered, sorted and counted", async () => {
  const { supabase, user } = await member();
  const rows = ok(await supabase.from("sessions").insert([{ name: "b" }, { name: "a" }]).select("id, name, user_id"));
  assert.deepEqual(rows.map((row) => row.name), ["b", "a"]);
  assert.equal(rows[0].user_id, user.id);
  const sorted = await supabase.from("sessions").select("name", { count: "exact" }).order("name").limit(1);
  assert.deepEqual([ok(sorted), sorted.count], [[{ name: "a" }], 2]);
  assert.deepEqual(ok(await supabase.from("sessions").select("name").eq("id", rows[0].id).single()), { name: "b" });
  assert.deepEqual(ok(await supabase.from("sessions").select("name").or("name.eq.b,name.eq.c")), [{ name: "b" }]);
  ok(await supabase.from("sessions").update({ name: "c" }).eq("id", rows[0].id));
  assert.equal(ok(await supabase.from("sessions").select("name").ilike("name", "C")).length, 1);
  assert.equal(ok(await connect().from("sessions").select("name").then((answer) => (answer.error ? { data: [], error: null } : answer))).length, 0);
});

await feature("rest: filters on what is inside of JSON", async () => {
  const { supabase, user } = await member();
  const preferences = { mentions: true, digest: { hour: 7, day: "mo" }, name: "x" };
  ok(await supabase.from("user_settings").update({ notification_preferences: preferences }).eq("user_id", user.id));
  const found = async (filter) => ok(await filter(supabase.from("user_settings").select("notification_preferences"))).length;
  assert.equal(await found((query) => query.eq("notification_preferences->>name", "x")), 1);
  assert.equal(await found((query) => query.eq("notification_preferences->>name", "y")), 0);
  assert.equal(await found((query) => query.neq("notification_preferences->>name", "y")), 1);
  assert.equal(await found((query) => query.eq("notification_preferences->digest->>day", "mo")), 1);
  assert.equal(await found((query) => query.eq("notification_preferences->>mentions", "true")), 1);
  assert.equal(await found((query) => query.eq("notification_preferences->digest->>hour", "7")), 1);
  assert.equal(await found((query) => query.eq("notification_preferences->digest->hour", "7")), 1);
  assert.equal(await found((query) => query.in("notification_preferences->>name", ["x", "z"])), 1);
  assert.equal(await found((query) => query.like("notification_preferences->>name", "x%")), 1);
  assert.equal(await found((query) => query.is("notification_preferences->>none", null)), 1);
  assert.equal(await found((query) => query.contains("notification_preferences", { name: "x" })), 1);
  assert.equal(await found((query) => query.or("notification_preferences->>name.eq.x,notification_preferences->>name.eq.q")), 1);
  const chosen = ok(await supabase.from("user_settings").select("day:notification_preferences->digest->>day"));
  assert.deepEqual(chosen, [{ day: "mo" }]);
});

await feature("rest: operations, and how they refuse", async () => {
  const { supabase, user } = await member();
  const me = ok(await supabase.schema("api").rpc("get_me", { args: {} }));
  assert.equal(JSON.stringify(me).includes(user.id), true);
  const missing = await supabase.schema("api").rpc("no_such_operation", { args: {} });
  assert.deepEqual([missing.error.code, missing.status], ["PGRST202", 404]);
  const table = await supabase.from("no_such_table").select();
  assert.deepEqual([table.error.code, table.status], ["PGRST205", 404]);
  const column = await supabase.from("sessions").select("no_such_column");
  assert.deepEqual([column.error.code, column.status], ["42703", 400]);
  const value = await supabase.from("sessions").select("id").eq("id", "no-uuid");
  assert.deepEqual([value.error.code, value.status], ["22P02", 400]);
  const long = await supabase.from("sessions").insert({ name: "x".repeat(300) });
  assert.deepEqual([long.error.code, long.status], ["23514", 400]);
  const several = await supabase.from("sessions").select("id").single();
  assert.deepEqual([several.error.code, several.status], ["PGRST116", 406]);
  const forbidden = await supabase.from("sessions").insert({ name: "x", user_id: randomUUID() });
  assert.deepEqual([forbidden.error.code, forbidden.status], ["42501", 403]);
  const unknown = await supabase.schema("api").rpc("delete_session", { args: { session_id: randomUUID() } });
  assert.equal(unknown.status, 404, JSON.stringify(unknown.error));
  const nobody = await connect().schema("api").rpc("get_me", { args: {} });
  assert.deepEqual([nobody.error.code, nobody.status], ["42501", 401]);
  const torn = await createClient(settings.SUPABASE_URL, settings.SUPABASE_PUBLISHABLE_KEY, {
    ...options, global: { headers: { Authorization: "Bearer a.b.c" } },
  }).from("sessions").select("id");
  assert.deepEqual([torn.error.code, torn.status], ["PGRST301", 401]);
});

const administrator = connect(settings.SUPABASE_SECRET_KEY);
const bucket = `js-${randomUUID()}`;
const files = administrator.storage.from(bucket);
const text = "0123456789";

await feature("storage: buckets", async () => {
  ok(await administrator.storage.createBucket(bucket, { public: false, fileSizeLimit: 100_000 }));
  const { error } = await administrator.storage.createBucket(bucket);
  assert.deepEqual([error.status, error.statusCode], [400, "409"], error.message);
  assert.equal(ok(await administrator.storage.getBucket(bucket)).public, false);
  assert.ok(ok(await administrator.storage.listBuckets()).some((each) => each.id === bucket));
});

await feature("storage: uploads, and a second one of the same name", async () => {
  const made = ok(await files.upload("a/b/one.txt", text, { contentType: "text/plain", cacheControl: "60" }));
  assert.deepEqual([made.path, made.fullPath], ["a/b/one.txt", `${bucket}/a/b/one.txt`]);
  assert.match(made.id, /^[0-9a-f-]{36}$/);
  const { error } = await files.upload("a/b/one.txt", text);
  assert.deepEqual([error.status, error.statusCode], [400, "409"]);
  ok(await files.upload("a/b/one.txt", text, { upsert: true, contentType: "text/plain", cacheControl: "60" }));
  ok(await files.update("a/b/one.txt", text, { contentType: "text/plain", cacheControl: "60" }));
  for (const name of ["a/two.txt", "a/Three.txt", "root.txt", "a/b/c/deep.txt"]) {
    ok(await files.upload(name, new Blob([name], { type: "text/plain" }), { metadata: { made: "here" } }));
  }
});

await feature("storage: lists show folders, and names within them", async () => {
  const names = async (...args) => ok(await files.list(...args)).map((entry) => entry.name);
  const root = ok(await files.list());
  assert.deepEqual(root.map((entry) => [entry.name, entry.id === null]), [["a", true], ["root.txt", false]]);
  assert.deepEqual(Object.keys(root[0]).sort(), ["created_at", "id", "last_accessed_at", "metadata", "name", "updated_at"]);
  assert.equal(root[0].metadata, null);
  assert.deepEqual([root[1].metadata.size, root[1].metadata.mimetype], [8, "text/plain"]);
  assert.deepEqual(await names("a"), ["b", "Three.txt", "two.txt"]);
  assert.deepEqual(await names("a/"), ["b", "Three.txt", "two.txt"]);
  assert.deepEqual(await names("a", { sortBy: { column: "name", order: "desc" } }), ["two.txt", "Three.txt", "b"]);
  assert.deepEqual(await names("a", { sortBy: { column: "created_at", order: "desc" } }), ["b", "Three.txt", "two.txt"]);
  assert.deepEqual(await names("a", { limit: 1, offset: 1 }), ["Three.txt"]);
  assert.deepEqual(await names("a", { search: "t" }), ["Three.txt", "two.txt"]);
  assert.deepEqual(await names("a/b"), ["c", "one.txt"]);
  assert.deepEqual(await names("nothing"), []);
  assert.deepEqual(ok(await connect().storage.from(bucket).list()), []);
});

await feature("storage: downloads, whole and in part, and their headers", async () => {
  assert.equal(await ok(await files.download("a/b/one.txt")).text(), text);
  const key = { apikey: settings.SUPABASE_SECRET_KEY, authorization: `Bearer ${settings.SUPABASE_SECRET_KEY}` };
  const get = (headers = {}, query = "", method = "GET", route = "") =>
    fetch(`${settings.SUPABASE_URL}/storage/v1/object/${route}${bucket}/a/b/one.txt${query}`, { method, headers: { ...key, ...headers } });
  const whole = await get();
  assert.deepEqual([whole.status, whole.headers.get("content-length"), whole.headers.get("accept-ranges")], [200, "10", "bytes"]);
  assert.equal(whole.headers.get("content-disposition"), null);
  for (const [range, body, told] of [
    ["bytes=2-4", "234", "bytes 2-4/10"],
    ["bytes=7-", "789", "bytes 7-9/10"],
    ["bytes=-2", "89", "bytes 8-9/10"],
    ["bytes=8-99", "89", "bytes 8-9/10"],
  ]) {
    const part = await get({ range });
    assert.deepEqual([part.status, part.headers.get("content-range"), part.headers.get("content-length")], [206, told, String(body.length)]);
    assert.equal(await part.text(), body);
  }
  const beyond = await get({ range: "bytes=10-" });
  assert.deepEqual([beyond.status, (await beyond.json()).statusCode], [400, "416"]);
  const same = await get({ "if-none-match": whole.headers.get("etag") });
  assert.deepEqual([same.status, await same.text()], [304, ""]);
  assert.equal((await get({ "if-modified-since": whole.headers.get("last-modified") })).status, 304);
  const named = await get({}, "?download=%C3%BC%20x.txt");
  assert.equal(named.headers.get("content-disposition"), "attachment; filename=%C3%BC%20x.txt; filename*=UTF-8''%C3%BC%20x.txt");
  assert.equal((await get({}, "?download")).headers.get("content-disposition"), "attachment;");
  const head = await get({}, "", "HEAD");
  assert.deepEqual([head.status, head.headers.get("content-length"), head.headers.get("content-type")], [200, "10", "text/plain"]);
  assert.equal((await get({}, "", "GET", "authenticated/")).status, 200);
});

await feature("storage: what is known of a file", async () => {
  const info = ok(await files.info("a/b/one.txt"));
  assert.deepEqual([info.name, info.size, info.contentType, info.bucketId], ["a/b/one.txt", 10, "text/plain", bucket]);
  assert.match(info.cacheControl, /max-age=60/);
  assert.ok(info.etag && info.lastModified && info.createdAt && info.version);
  assert.deepEqual(ok(await files.info("a/two.txt")).metadata, { made: "here" });
  assert.equal((await files.exists("a/b/one.txt")).data, true);
  assert.equal((await files.exists("a/b/none.txt")).data, false);
});

await feature("storage: what is not there says so", async () => {
  const { error } = await files.info("a/none.txt");
  assert.deepEqual([error.status, error.statusCode, error.message], [400, "404", "Object not found"]);
  const headers = { apikey: settings.SUPABASE_SECRET_KEY, authorization: `Bearer ${settings.SUPABASE_SECRET_KEY}` };
  for (const [name, code] of [[`${bucket}/none`, "NoSuchKey"], ["no-such-bucket/none", "NoSuchBucket"]]) {
    const answer = await fetch(`${settings.SUPABASE_URL}/storage/v1/object/${name}`, { headers });
    assert.deepEqual([answer.status, (await answer.json()).code], [400, code]);
  }
  for (const call of [files.download("none"), files.copy("none", "there"), files.move("none", "there"), files.createSignedUrl("none", 60)]) {
    const { error: refusal } = await call;
    assert.equal(refusal?.message ?? "nothing was refused", "Object not found");
  }
  assert.deepEqual(ok(await files.remove(["none"])), []);
});

await feature("storage: signed addresses", async () => {
  const { signedUrl } = ok(await files.createSignedUrl("a/b/one.txt", 60, { download: "mine.txt" }));
  const read = await fetch(signedUrl, { headers: { range: "bytes=0-2" } });
  assert.deepEqual([read.status, await read.text()], [206, "012"]);
  assert.match(read.headers.get("content-disposition"), /^attachment; filename=mine\.txt/);
  const several = ok(await files.createSignedUrls(["a/b/one.txt", "none"], 60));
  assert.equal(await (await fetch(several[0].signedUrl)).text(), text);
  assert.equal(several[1].error, "Either the object does not exist or you do not have access to it");
  const upload = ok(await files.createSignedUploadUrl("signed.txt"));
  ok(await connect().storage.from(bucket).uploadToSignedUrl("signed.txt", upload.token, text, { contentType: "text/plain" }));
  assert.equal(await ok(await files.download("signed.txt")).text(), text);
  const spent = await connect().storage.from(bucket).uploadToSignedUrl("signed.txt", upload.token, text);
  assert.equal(spent.error.statusCode, "409");
});

await feature("storage: a signed address for an upload ends with its sign-in", async () => {
  const { supabase, user } = await member();
  const own = supabase.storage.from("avatars");
  const upload = ok(await own.createSignedUploadUrl(`${user.id}/x.png`));
  ok({ data: null, ...(await supabase.auth.signOut()) });
  const late = await connect().storage.from("avatars").uploadToSignedUrl(`${user.id}/x.png`, upload.token, "x", { contentType: "image/png" });
  assert.equal(late.error.statusCode, "403", late.error.message);
});

await feature("storage: copies, moves and removals", async () => {
  assert.deepEqual(ok(await files.copy("a/b/one.txt", "copied.txt")), { path: `${bucket}/copied.txt` });
  assert.equal(await ok(await files.download("copied.txt")).text(), text);
  ok(await files.move("copied.txt", "moved.txt"));
  assert.equal((await files.exists("copied.txt")).data, false);
  const removed = ok(await files.remove(["moved.txt"]));
  assert.deepEqual([removed.length, removed[0].name, removed[0].bucket_id], [1, "moved.txt", bucket]);
});

await feature("storage: a file that is too large is refused in words", async () => {
  for (const size of [100_001, 5_000_000, 80 * 1024 * 1024]) {
    for (const body of [new Uint8Array(size), new Blob([new Uint8Array(size)], { type: "text/plain" })]) {
      const { error } = await files.upload(`large-${randomUUID()}`, body);
      assert.deepEqual([error?.status, error?.statusCode], [400, "413"], `${size}: ${error?.message}`);
      assert.match(error.message, /^The object exceeded the maximum allowed size/);
    }
  }
});

await feature("storage: a bucket is emptied and deleted", async () => {
  const { error } = await administrator.storage.deleteBucket(bucket);
  assert.equal(error.statusCode, "409");
  ok(await administrator.storage.emptyBucket(bucket));
  ok(await administrator.storage.deleteBucket(bucket));
});
