// What differs between Lite's answers and those of a hosted project.
import { randomBytes } from "node:crypto";
import { storageRefusal } from "./refusals.mjs";

const STORAGE = "/storage/v1";
const SIGN = /^\/storage\/v1\/object\/(upload\/)?sign\//;

const AUTH = "/auth/v1/";
const LOOKED_AT = new Set(["verify", ".well-known/jwks.json"]);
const OBJECT = "/storage/v1/object/";
// Behind these a path holds names of files and tables, which may need encoding.
const NAMES_OF_DATA = /(?<=^\/(?:storage\/v1\/[a-z]+|rest\/v1)\/).*$/;

/**
 * A 400 for an unsafe object key or a damaged token, a 405 for HEAD of what the auth server only does for GET (Lite would
 * do it: send a mail, exchange a provider's code); otherwise null.
 */
export function refuse({ method }, { pathname, searchParams }) {
  if (method === "HEAD" && pathname.startsWith(AUTH) && !LOOKED_AT.has(pathname.slice(AUTH.length))) {
    return new Response(null, { status: 405, headers: { allow: "GET" } });
  }
  if (/%/.test(pathname.replace(NAMES_OF_DATA, ""))) {
    // Lite would decode it, and what stands before Lite knows routes by their plain names.
    return new Response("404 page not found", { status: 404, headers: { "content-type": "text/plain; charset=utf-8" } });
  }
  if (pathname.startsWith(`${STORAGE}/`) && !isSafePath(pathname.slice(STORAGE.length + 1))) {
    return badRequest("InvalidKey", "This object key is not allowed.");
  }
  if (SIGN.test(pathname) && searchParams.has("token") && !isJwt(searchParams.get("token"))) {
    return badRequest("InvalidJWT", "The token of this address is damaged."); // Lite would answer 500
  }
  return null;
}

const badRequest = (code, message) => storageRefusal(400, code, code, message);

function isJwt(token) {
  const parts = token.split(".");
  if (parts.length !== 3) return false;
  try {
    return parts.slice(0, 2).every((part) => typeof JSON.parse(Buffer.from(part, "base64url").toString()) === "object");
  } catch {
    return false;
  }
}

function isSafePath(encoded) {
  try {
    const key = decodeURIComponent(encoded);
    return !/\p{Cc}/u.test(key) && key.split(/[/\\]/).every((segment) => segment !== "." && segment !== "..");
  } catch {
    return false;
  }
}

/**
 * Signing up again with a known address: a hosted project that confirms addresses answers as for a new one, so that
 * nobody learns who has an account, and sends another mail where the first one was not used; Lite answers 429. Only for
 * /auth/v1/signup. renew: has another mail sent to an address that waits for its confirmation.
 */
export async function hideExistingAccount(request, forward, renew) {
  const copy = request.clone();
  const response = await forward();
  if (response.status !== 429) return response;
  const { email } = await copy.json();
  await renew(String(email));
  const now = new Date().toISOString();
  return Response.json({
    id: timedId(),
    aud: "authenticated",
    role: "authenticated",
    email: String(email).toLowerCase(),
    phone: "",
    confirmation_sent_at: now,
    app_metadata: { provider: "email", providers: ["email"] },
    user_metadata: {},
    identities: [],
    created_at: now,
    updated_at: now,
    is_anonymous: false,
  });
}

/**
 * A code or link for an address that nobody has registered: the account that Lite makes of it is confirmed by the code,
 * not before, and signs in nobody before. Where addresses need no confirmation it is as Lite makes it.
 */
export async function leaveUnconfirmed(request, forward, sql) {
  const { email } = (await request.clone().json().catch(() => null)) ?? {};
  if (typeof email !== "string") return forward();
  const address = email.toLowerCase();
  const [known] = await sql`select 1 from auth.users where email = ${address}`;
  const response = await forward();
  if (known || !response.ok) return response;
  await sql`
    with made as (
      update auth.users set email_confirmed_at = null, last_sign_in_at = null, confirmation_token = recovery_token,
        confirmation_sent_at = recovery_sent_at, recovery_token = null, recovery_sent_at = null
      where email = ${address} returning id
    )
    delete from auth.sessions where user_id in (select id from made)`;
  return response;
}

/** Sends a confirmation mail again, which Lite never does. Only for /auth/v1/resend; `renew` as above. */
export async function resendConfirmation(request, forward, renew) {
  const copy = request.clone();
  const response = await forward();
  if (response.status !== 429) return response;
  const { type, email } = await copy.json();
  if (type !== "signup") return response;
  await renew(String(email));
  return Response.json({});
}

// Version 7, as the ids of real users here: another kind of id would give the pretence away.
function timedId() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

const BATCH = /^\/storage\/v1\/object\/sign\/([^/]+)$/;
const MAX_PATHS = 500;

/**
 * Signs several paths of a bucket, or returns null for any other request. Lite's own route for it is never reached,
 * because the route for one path matches first.
 */
export async function signSeveral(request, { pathname, origin }, forward) {
  const bucket = BATCH.exec(pathname)?.[1];
  if (request.method !== "POST" || !bucket) return null;
  const { paths, expiresIn } = (await request.json().catch(() => null)) ?? {};
  if (!Array.isArray(paths) || paths.length > MAX_PATHS || !paths.every(isPath)) {
    return badRequest("InvalidRequest", `paths must be a list of at most ${MAX_PATHS} texts.`);
  }
  const headers = new Headers(request.headers);
  headers.delete("content-length");
  headers.set("content-type", "application/json");
  const entries = [];
  for (const path of paths) {
    const address = `${origin}/storage/v1/object/sign/${bucket}/${path.split("/").map(encodeURIComponent).join("/")}`;
    const one = new Request(address, { method: "POST", headers, body: JSON.stringify({ expiresIn }) });
    const answer = await forward(one);
    const body = await answer.json();
    if (answer.status === 401) return Response.json(body, { status: 401 });
    entries.push(answer.ok ? { path, error: null, ...corrected(body) } : { path, error: unsignable(body), signedURL: null });
  }
  return Response.json(entries);
}

// A path that leads out of the bucket would be another address of Lite's.
const isPath = (path) => typeof path === "string" && path.isWellFormed() && isSafePath(encodeURIComponent(path));

const unsignable = ({ error, message }) =>
  error === "not_found" ? "Either the object does not exist or you do not have access to it" : message;

/** Adds `signedURL` and `url`, relative to /storage/v1, which the storage clients read. */
export async function correctSignedUrls(method, pathname, response) {
  if (method !== "POST" || !SIGN.test(pathname) || !response.ok) return response;
  const body = await response.json();
  const headers = new Headers(response.headers);
  headers.delete("content-length");
  return Response.json(Array.isArray(body) ? body.map(corrected) : corrected(body), { status: response.status, headers });
}

function corrected(entry) {
  const address = entry.signedUrl ?? entry.signedURL ?? entry.url;
  if (typeof address !== "string" || address === "") return { ...entry, signedURL: null };
  const relative = address.startsWith(STORAGE) ? address.slice(STORAGE.length) : address;
  return { ...entry, signedURL: relative, url: relative };
}
