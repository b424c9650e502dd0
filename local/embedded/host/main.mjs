// The embedded Supabase: auth, REST and storage of @supabase/lite on the local Postgres, on the loopback address unless told otherwise.
import path from "node:path";
import process from "node:process";
import { serve } from "@hono/node-server";
import { refuseAddress } from "./addresses.mjs";
import { Callers } from "./callers.mjs";
import { openConnection } from "./connection.mjs";
import { answerPreflight, readableElsewhere } from "./cors.mjs";
import { noteError, tellErrors } from "./database-errors.mjs";
import { takeRest } from "./drain.mjs";
import { quoteTexts } from "./filters.mjs";
import { isForwarded, kindOf, Limits, refuseLarge, tooMany } from "./limits.mjs";
import { App, setExperimental } from "./lite.mjs";
import { LogIn } from "./log-in.mjs";
import { MailPauses } from "./mail-pauses.mjs";
import { Mailer, requestedRedirect } from "./mail.mjs";
import { refuseMissing } from "./missing.mjs";
import { Objects } from "./objects.mjs";
import { OneTime } from "./one-time.mjs";
import { inPlainLetters } from "./paths.mjs";
import { Refresh } from "./refresh.mjs";
import { correctSignedUrls, hideExistingAccount, leaveUnconfirmed, refuse, resendConfirmation, signSeveral } from "./responses.mjs";
import { prepareDatabase } from "./schema.mjs";
import { SignIns } from "./sign-ins.mjs";
import { Signing } from "./signing.mjs";
import { FileStorageAdapter, withTransfer } from "./storage.mjs";
import { MAX_FILE_BYTES, unwrapUpload } from "./uploads.mjs";

const need = (name) => {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is missing. Start this program with \`concerto up\`.`);
  return value;
};

const settings = {
  databaseUrl: need("HOST_DATABASE_URL"),
  jwtSecret: need("HOST_JWT_SECRET"),
  publishableKey: need("HOST_PUBLISHABLE_KEY"),
  secretKey: need("HOST_SECRET_KEY"),
  apiUrl: need("HOST_API_URL"),
  siteUrl: need("HOST_SITE_URL"),
  home: need("HOST_HOME"),
  port: Number(need("HOST_PORT")),
  listen: process.env.HOST_LISTEN || "127.0.0.1",
  redirectUrls: JSON.parse(process.env.HOST_REDIRECT_URLS ?? "[]"),
  providers: JSON.parse(process.env.HOST_PROVIDERS ?? "{}"),
  accessTokenSeconds: Number(need("HOST_ACCESS_TOKEN_SECONDS")),
  confirmEmail: process.env.HOST_CONFIRM_EMAIL === "true",
  // Absent: tokens stay as Lite signs them, with the shared secret.
  signingKey: process.env.HOST_SIGNING_KEY ?? "",
  forwardingKey: process.env.HOST_FORWARDING_KEY ?? "",
  // What each address may do in five minutes, and the pause between mails; absent: anything, and none.
  signInLimit: Number(process.env.HOST_SIGN_IN_LIMIT || Infinity),
  codeLimit: Number(process.env.HOST_CODE_LIMIT || Infinity),
  refreshLimit: Number(process.env.HOST_REFRESH_LIMIT || Infinity),
  mailSeconds: Number(process.env.HOST_MAIL_SECONDS || 0),
};
const CODE_SECONDS = 3600;
const CODE_MAILS = new Set(["/auth/v1/otp", "/auth/v1/magiclink"]);
for (const name of Object.keys(process.env)) if (name.startsWith("HOST_")) delete process.env[name];

// Lite prints whole database errors, whose details can hold a row's content; their name and code say enough here.
console.error = (...parts) => noteError(parts) || process.stderr.write(`${parts.map(describeForLog).join(" ")}\n`);

setExperimental("storage", true);
// Ten connections, each part with a share of its own: slow queries for data keep nobody from signing in, and a crowd that
// signs in keeps nobody from their data.
const accounts = openConnection(settings.databaseUrl, 4);
const data = openConnection(settings.databaseUrl, 6);
const { signInLimit: signIns } = settings;
const limits = new Limits({
  password: signIns, signup: signIns, mail: signIns, user: signIns, code: settings.codeLimit, token: settings.refreshLimit,
});
const pauses = new MailPauses(settings.mailSeconds);
const oneTime = new OneTime({
  sql: accounts.driver, secret: settings.jwtSecret, expirySeconds: CODE_SECONDS, mailSeconds: settings.mailSeconds,
});
const logIn = new LogIn({ sql: accounts.driver, cost: Number(process.env.LITE_AUTH_BCRYPT_COST || 10) });
const mailer = new Mailer({
  folder: path.join(settings.home, "mail"),
  templates: path.join(import.meta.dirname, "..", "..", "..", "supabase", "templates"),
  siteUrl: settings.siteUrl,
  seal: (hash) => oneTime.seal(hash),
  onSent: (column, email) => oneTime.forget(column, email),
});
const signing = await Signing.open({
  jwk: settings.signingKey,
  secret: settings.jwtSecret,
  issuer: `${settings.apiUrl}/auth/v1`,
  sql: accounts.driver,
});
const refresh = new Refresh(accounts.driver);
const { jwtSecret: secret, publishableKey, secretKey } = settings;
const callers = new Callers({ secret, publishableKey, secretKey });
// For each part one that asks by that part's connections.
const guard = new SignIns({ sql: data.driver, callers });
const accountGuard = new SignIns({ sql: accounts.driver, callers });
const objects = new Objects({ sql: data.driver, callers, guard, secret });
const configuration = {
  auth: {
    enabled: true,
    jwt_secret: settings.jwtSecret,
    jwt_expiry: settings.accessTokenSeconds,
    publishable_key: settings.publishableKey,
    secret_key: settings.secretKey,
    site_url: settings.siteUrl,
    additional_redirect_urls: settings.redirectUrls,
    enable_signup: true,
    enable_refresh_token_rotation: true,
    minimum_password_length: 8,
    email: { enable_signup: true, enable_confirmations: settings.confirmEmail, otp_expiry: CODE_SECONDS },
    external: settings.providers,
  },
  storage: { enabled: true, file_size_limit: `${MAX_FILE_BYTES}B` },
  api: { schemas: ["public", "api"] },
  options: { server: { admin: false } },
};
const accountApp = new App({ ...configuration, connection: accounts });
const dataApp = new App({ ...configuration, connection: data });
accountApp._mailer = mailer;
dataApp._storageAdapter = new FileStorageAdapter(path.join(settings.home, "storage"), bucketRules);
await Promise.all([accountApp.init(), dataApp.init()]);
const changed = await prepareDatabase(dataApp, data, path.join(import.meta.dirname, "..", "bootstrap.sql"));

function describeForLog(part) {
  if (typeof part === "string") return part.slice(0, 500);
  if (!(part instanceof Error)) return typeof part;
  return part.code ? `${part.name} ${part.code}` : `${part.name}: ${part.message.split("\n")[0].slice(0, 200)}`;
}

/** What may lie in a bucket: `types` (null: any) and `bytes` (null: any number) of each file. */
async function bucketRules(bucket) {
  const [row] = await data.driver`
    select allowed_mime_types as types, file_size_limit as bytes from storage.buckets where id = ${bucket}`;
  return { types: row?.types?.length ? row.types : null, bytes: row?.bytes == null ? null : Number(row.bytes) };
}

async function answer(given, env) {
  const request = inPlainLetters(given);
  const url = new URL(request.url);
  const peerAddress = env.incoming.socket.remoteAddress ?? null;
  const app = url.pathname.startsWith("/auth/v1/") ? accountApp : dataApp;
  const forward = (each) => app.fetch(each, { peerAddress });
  const refusal = refuse(request, url) ?? refuseLarge(request, url) ?? signing.answerKeySet(request, url);
  if (refusal) return refusal;
  const limited = kindOf(request, url);
  const wait = limited && !isForwarded(request, settings.forwardingKey) ? limits.take(limited, peerAddress) : 0;
  if (wait > 0) return tooMany(wait);
  const unmet = (await refuseMissing(request, url)) ?? (await refuseAddress(request, url));
  if (unmet) return unmet;
  const target = () => allowedRedirect(url, forward);
  const look = await oneTime.answerLook(request, url, target);
  if (look) return look;
  const own = await signing.incoming(request);
  const ended = (await guard.refuse(own, url)) ?? (await accountGuard.refuseBlocked(own, url));
  if (ended) return ended;
  const response = await pauses.between(own, url, () => tellErrors(url, () => answerAs(own, url, forward, target)));
  return signing.outgoing(response, url);
}

async function answerAs(request, url, forward, target) {
  const several = await signSeveral(request, url, forward);
  if (several) return several;
  const verified = await oneTime.answerVerification(request, url, forward);
  if (verified) return verified;
  const wrong = await logIn.answerWrong(request, url);
  if (wrong) return wrong;
  const plain = await unwrapUpload(request, url);
  if (plain instanceof Response) return plain;
  const mayMail = url.pathname.startsWith("/auth/v1/") && (request.method === "POST" || request.method === "PUT");
  const redirect = mayMail && url.searchParams.has("redirect_to") ? await target() : null;
  const byLite = (each) => requestedRedirect.run(redirect, () => answerByLite(each, url, forward));
  const ofFiles = await objects.answer(plain, url, byLite);
  if (ofFiles) return ofFiles;
  const exchanged = await refresh.answer(plain, url, byLite);
  return accountGuard.refuseBanned(plain, url, exchanged ?? (await accountGuard.endOthers(plain, url, byLite)));
}

async function answerByLite(given, url, forward) {
  const request = logOutOfAll(given, url);
  const renew = (email) => oneTime.renewConfirmation(email, mailer);
  if (settings.confirmEmail && request.method === "POST" && url.pathname === "/auth/v1/signup") {
    return hideExistingAccount(request, () => forward(request), renew);
  }
  if (request.method === "POST" && url.pathname === "/auth/v1/resend") {
    return resendConfirmation(request, () => forward(request), renew);
  }
  if (settings.confirmEmail && request.method === "POST" && CODE_MAILS.has(url.pathname)) {
    return leaveUnconfirmed(request, () => forward(request), accounts.driver);
  }
  if (url.pathname.startsWith("/rest/v1/")) {
    return forward(await quoteTexts(request, url, () => data.introspect({ useCache: true })));
  }
  return correctSignedUrls(request.method, url.pathname, await withTransfer(request, () => forward(request)));
}

/** A log-out that names no scope is one of all sign-ins, as in Supabase Auth; Lite would end one. */
function logOutOfAll(request, { pathname, searchParams, href }) {
  if (request.method !== "POST" || pathname !== "/auth/v1/logout" || searchParams.has("scope")) return request;
  return new Request(`${href}${href.includes("?") ? "&" : "?"}scope=global`, request);
}

/** Where a link may lead: the redirect_to of a request if it is on the list, else the site. Lite tells, for a link of nobody. */
async function allowedRedirect({ origin, searchParams }, forward) {
  const wanted = searchParams.get("redirect_to");
  if (!wanted) return settings.siteUrl;
  const link = new URLSearchParams({ type: "signup", token: "-", redirect_to: wanted });
  const look = await forward(new Request(`${origin}/auth/v1/verify?${link}`));
  return (look.headers.get("location") ?? settings.siteUrl).split("#", 1)[0];
}

async function answerPage(request, env) {
  const preflight = answerPreflight(request);
  if (preflight) return preflight;
  try {
    const response = await answer(request, env);
    if (response.status >= 400) await takeRest(env.incoming);
    return readableElsewhere(response);
  } catch (error) {
    console.error("unanswered:", error); // as while Postgres is away
    const body = { code: 500, error_code: "unexpected_failure", msg: "Internal server error" };
    return readableElsewhere(Response.json(body, { status: 500 }));
  }
}

const server = serve({ port: settings.port, hostname: settings.listen, fetch: answerPage }, () => {
  console.log(`listening on ${settings.listen}:${settings.port}, schema ${changed ? "prepared" : "unchanged"}`);
});

// Sent after migrations: what is known about tables and functions is read again at the next request.
process.on("SIGHUP", () => {
  guard.forget();
  Promise.all([accounts.clearSchemaCache(), data.clearSchemaCache()]).then(
    () => console.log("schema cache cleared"),
    (error) => console.error("the schema cache was not cleared:", error),
  );
});

async function stop() {
  server.close();
  server.closeIdleConnections?.();
  setTimeout(() => process.exit(0), 3000).unref();
  await Promise.allSettled([accounts.close(), data.close()]);
  process.exit(0);
}
process.once("SIGTERM", stop);
process.once("SIGINT", stop);
// A lost database connection can surface here; the pool reconnects by itself.
process.on("unhandledRejection", (reason) => console.error("unhandled:", reason));
