// The embedded Supabase: auth, REST and storage of @supabase/lite on the local Postgres, on the loopback address unless told otherwise.
import path from "node:path";
import process from "node:process";
import { serve } from "@hono/node-server";
import { App, setExperimental } from "@supabase/lite";
import { openConnection } from "./connection.mjs";
import { answerPreflight, readableElsewhere } from "./cors.mjs";
import { FileMailDriver, requestedRedirect } from "./mail.mjs";
import { correctSignedUrls, hideExistingAccount, refuse, signSeveral } from "./responses.mjs";
import { prepareDatabase } from "./schema.mjs";
import { FileStorageAdapter } from "./storage.mjs";
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
};
for (const name of Object.keys(process.env)) if (name.startsWith("HOST_")) delete process.env[name];

// Lite prints whole database errors, whose details can hold a row's content; their name and code say enough here.
console.error = (...parts) => process.stderr.write(`${parts.map(describeForLog).join(" ")}\n`);

setExperimental("storage", true);
const connection = openConnection(settings.databaseUrl);
const app = new App({
  connection,
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
    email: { enable_signup: true, enable_confirmations: settings.confirmEmail },
    external: settings.providers,
  },
  storage: { enabled: true, file_size_limit: `${MAX_FILE_BYTES}B` },
  api: { schemas: ["public", "api"] },
  options: {
    server: { admin: false },
    drivers: {
      email: new FileMailDriver({
        folder: path.join(settings.home, "mail"), siteUrl: settings.siteUrl, apiUrl: settings.apiUrl,
      }),
    },
  },
});
app._storageAdapter = new FileStorageAdapter(path.join(settings.home, "storage"));
await app.init();
const changed = await prepareDatabase(app, connection, path.join(import.meta.dirname, "..", "bootstrap.sql"));

function describeForLog(part) {
  if (typeof part === "string") return part.slice(0, 500);
  if (!(part instanceof Error)) return typeof part;
  return part.code ? `${part.name} ${part.code}` : `${part.name}: ${part.message.split("\n")[0].slice(0, 200)}`;
}

async function answer(request, env) {
  const url = new URL(request.url);
  const refusal = refuse(url);
  if (refusal) return refusal;
  const peerAddress = env.incoming.socket.remoteAddress ?? null;
  const forward = (each) => app.fetch(each, { peerAddress });
  const several = await signSeveral(request, url, forward);
  if (several) return several;
  const plain = await unwrapUpload(request, url);
  if (plain instanceof Response) return plain;
  if (settings.confirmEmail && request.method === "POST" && url.pathname === "/auth/v1/signup") {
    return hideExistingAccount(request, () => requestedRedirect.run(url.searchParams.get("redirect_to"), () => forward(plain)));
  }
  const response = await requestedRedirect.run(url.searchParams.get("redirect_to"), () => forward(plain));
  return correctSignedUrls(request.method, url.pathname, response);
}

async function answerPage(request, env) {
  return answerPreflight(request) ?? readableElsewhere(await answer(request, env));
}

const server = serve({ port: settings.port, hostname: settings.listen, fetch: answerPage }, () => {
  console.log(`listening on ${settings.listen}:${settings.port}, schema ${changed ? "prepared" : "unchanged"}`);
});

// Sent after migrations: what is known about tables and functions is read again at the next request.
process.on("SIGHUP", () => {
  connection.clearSchemaCache().then(
    () => console.log("schema cache cleared"),
    (error) => console.error("the schema cache was not cleared:", error),
  );
});

async function stop() {
  server.close();
  server.closeIdleConnections?.();
  setTimeout(() => process.exit(0), 3000).unref();
  await connection.close().catch(() => {});
  process.exit(0);
}
process.once("SIGTERM", stop);
process.once("SIGINT", stop);
// A lost database connection can surface here; the pool reconnects by itself.
process.on("unhandledRejection", (reason) => console.error("unhandled:", reason));
