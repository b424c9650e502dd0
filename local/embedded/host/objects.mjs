// Files as a hosted project answers about them, where Lite answers otherwise: lists, parts of files, what is known of one,
// what a copy is called, and why something is refused. Lite still decides who may do what.
import { SignJWT } from "jose";
import { asCaller } from "./callers.mjs";
import { storageRefusal } from "./refusals.mjs";
import { isSafeKey } from "./storage.mjs";

const STORAGE = "/storage/v1";
const OBJECT = `${STORAGE}/object/`;
const MISSING = /^\/storage\/v1\/(upload\/resumable|render|s3|iceberg|vector|cdn|object\/list-v2)(\/|$)/;
const MOST_LISTED = 1500;
const UPLOAD_SECONDS = 7200;
const SORTABLE = ["name", "updated_at", "created_at", "last_accessed_at"];
// The code of a refusal by what Lite calls it; each with the words of a hosted project where they differ.
const CODES = {
  not_found: "NoSuchKey",
  "Bucket not found": "NoSuchBucket",
  Duplicate: "KeyAlreadyExists",
  ResourceNotEmpty: "ResourceNotEmpty",
  Unauthorized: "AccessDenied",
  "Payload too large": "EntityTooLarge",
  invalid_mime_type: "InvalidMimeType",
  "Invalid key": "InvalidKey",
  InvalidJWT: "InvalidJWT",
  InvalidRequest: "InvalidRequest",
  MissingContentLength: "MissingContentLength",
  server_error: "InternalError",
};
const TOO_LARGE = "The object exceeded the maximum allowed size";

/** Stands in front of Lite's storage. sql: its connection; callers: who asks; guard: whose sign-in has ended. */
export class Objects {
  #sql;
  #callers;
  #guard;
  #secret;

  constructor({ sql, callers, guard, secret }) {
    this.#sql = sql;
    this.#callers = callers;
    this.#guard = guard;
    this.#secret = new TextEncoder().encode(secret);
  }

  /** The answer to a request for files; null for any other. forward: hands a request to Lite. */
  async answer(request, url, forward) {
    if (!url.pathname.startsWith(`${STORAGE}/`)) return null;
    return inWords(await this.#answer(request, url, forward), request.method);
  }

  async #answer(request, url, forward) {
    const { method } = request;
    const { pathname } = url;
    if (MISSING.test(pathname)) {
      return storageRefusal(501, "not_implemented", "NotSupported", "This is not part of the embedded Supabase.");
    }
    const listed = /^\/storage\/v1\/object\/list\/([^/]+)$/.exec(pathname);
    if (listed && method === "POST") return this.#list(request, decodeURIComponent(listed[1]));
    if (pathname === `${OBJECT}copy` || pathname === `${OBJECT}move`) return this.#relocate(request, forward);
    if (pathname.startsWith(`${OBJECT}info/`) && method === "GET") return this.#info(request, url, forward);
    if (pathname.startsWith(`${OBJECT}upload/sign/`)) return this.#signedUpload(request, url, forward);
    if (!pathname.startsWith(OBJECT)) return forward(request);
    if (method === "GET" || method === "HEAD") return this.#read(request, url, forward);
    if (method === "POST" || method === "PUT") return this.#keepMetadata(request, await forward(request));
    return forward(request);
  }

  /**
   * Lists what stands directly in a folder, other folders among it, by name or by a time; as hosted, whatever the case
   * of the prefix's letters. Of a bucket that is not there as of one that holds nothing that the caller may see: nothing.
   */
  async #list(request, bucket) {
    const asked = await request.json().catch(() => null);
    const problem = problemOfList(asked);
    if (problem) return storageRefusal(400, "Error", "InvalidRequest", problem);
    const { prefix, search = "", limit = 100, offset = 0 } = asked;
    const sortBy = asked.sortBy ?? {};
    const folder = prefix === "" || prefix.endsWith("/") ? prefix : `${prefix}/`;
    const start = folder + search;
    const { column = "name", order = "asc" } = sortBy;
    const claims = await this.#callers.judgedClaimsOf(request);
    const entries = await asCaller(this.#sql, claims, "read only", (sql) => {
      const direction = order === "desc" ? sql`desc` : sql`asc`;
      // Folders stand among files by name, and before them by a time, which they have none of.
      const byTime = column === "name" ? sql`` : sql`is_folder desc, case when not is_folder then ${sql(column)} end ${direction},`;
      return sql`
        with asked as (
          select length(${folder}::text) as folder, length(${start}::text) as start
        ), found as (
          select o.*, a.start, strpos(substr(o.name, a.start + 1), '/') as slash from storage.objects as o, asked as a
          where o.bucket_id = ${bucket} and starts_with(lower(o.name), lower(${start}))
        ), entries as (
          select min(left(name, start + slash - 1)) as path, true as is_folder,
            lower(left(name, start + slash)) as place, null::uuid as id, null::timestamptz as updated_at,
            null::timestamptz as created_at, null::timestamptz as last_accessed_at, null::jsonb as metadata
          from found where slash > 0 group by place
          union all
          select name, false, lower(name), id, updated_at, created_at, last_accessed_at, metadata from found where slash = 0
        )
        select substr(path, folder + 1) as name, id, updated_at, created_at, last_accessed_at, metadata
        from entries, asked order by ${byTime} place collate "C" ${direction}
        limit ${Math.min(limit, MOST_LISTED)} offset ${offset}`;
    });
    return Response.json(entries);
  }

  /** A file or a part of it, or only its headers. */
  async #read(request, url, forward) {
    const plain = new URL(url);
    plain.pathname = url.pathname.replace(`${OBJECT}authenticated/`, OBJECT);
    const response = await forward(new Request(plain, { method: "GET", headers: request.headers }));
    const headers = new Headers(response.headers);
    const name = url.searchParams.get("download");
    if (response.ok && name !== null) headers.set("content-disposition", disposition(name));
    const { status } = response;
    if (request.method === "GET") return new Response(response.body, { status, headers });
    await response.body?.cancel();
    return new Response(null, { status, headers });
  }

  async #info(request, url, forward) {
    const plain = new URL(url);
    const [, kind, rest] = /^(public\/|authenticated\/)?(.*)$/s.exec(url.pathname.slice(`${OBJECT}info/`.length));
    plain.pathname = `${OBJECT}info/${rest}`;
    if (kind === "public/" && !(await this.#isPublic(decodeURIComponent(rest.split("/", 1)[0])))) return noBucket();
    const response = await forward(new Request(plain, { headers: request.headers }));
    if (!response.ok) return response;
    const { id, name, version, bucket_id, httpMetadata: file, user_metadata: own, updated_at, created_at } = await response.json();
    return Response.json({
      id, name, version, bucket_id, size: file.size, content_type: file.mimetype, cache_control: file.cacheControl,
      etag: file.eTag, metadata: own && Object.keys(own).length > 0 ? own : null, last_modified: updated_at, created_at,
    });
  }

  async #isPublic(bucket) {
    const [row] = await this.#sql`select public from storage.buckets where id = ${bucket}`;
    return row?.public === true;
  }

  /** Copies and moves, whose answers name the bucket too. */
  async #relocate(request, forward) {
    const asked = await request.clone().json().catch(() => null);
    if (["bucketId", "sourceKey", "destinationBucket", "destinationKey"].some((name) => !isStorable(asked?.[name] ?? ""))) {
      return storageRefusal(400, "Invalid key", "InvalidKey", "This object key is not allowed.");
    }
    const response = await forward(request);
    if (!response.ok) return response;
    const bucket = asked.destinationBucket ?? asked.bucketId;
    const [object] = await this.#sql`
      select id, name, bucket_id, owner, owner_id, version, created_at, updated_at, last_accessed_at, metadata, user_metadata
      from storage.objects where bucket_id = ${bucket} and name = ${asked.destinationKey}`;
    const told = { Id: object?.id, Key: `${bucket}/${asked.destinationKey}` };
    return Response.json(request.url.endsWith("/move") ? { message: "Successfully moved", ...told } : { ...told, ...object });
  }

  /**
   * Addresses for uploads. Each carries the sign-in that it was signed for, and ends with it; those of a hosted project
   * hold until they expire.
   */
  async #signedUpload(request, url, forward) {
    if (request.method === "POST") {
      const claims = await this.#callers.claimsOf(request);
      const response = await forward(request);
      if (!response.ok || claims?.session_id === undefined) return response;
      const body = await response.json();
      const { exp: _, ...own } = claims;
      const bound = { ...(await this.#callers.read(body.token)), signed_for: own };
      const expiresAt = Math.floor(Date.now() / 1000) + UPLOAD_SECONDS;
      const token = await new SignJWT(bound).setProtectedHeader({ alg: "HS256", typ: "JWT" }).setExpirationTime(expiresAt).sign(this.#secret);
      const rebound = Object.entries(body).map(([key, value]) => [key, String(value).replace(body.token, token)]);
      return Response.json(Object.fromEntries(rebound));
    }
    const claims = await this.#callers.read(url.searchParams.get("token") ?? "");
    if (claims?.signed_for && (await this.#guard.hasEnded(claims.signed_for))) {
      return storageRefusal(403, "Unauthorized", "AccessDenied", "The sign-in that this address was signed for has ended.");
    }
    if (claims?.signed_for && !(await this.#mayStore(claims.signed_for, claims.bucket, claims.sub))) {
      return storageRefusal(403, "Unauthorized", "AccessDenied", "new row violates row-level security policy");
    }
    return this.#keepMetadata(request, await forward(request));
  }

  /**
   * Whether policies still let somebody store a file: many addresses may have been signed while there was room for one. Tried
   * and taken back, as only a write asks all of them.
   */
  async #mayStore(claims, bucket, name) {
    const takenBack = Symbol("taken back");
    const attempt = asCaller(this.#sql, claims, "read write", async (own) => {
      const replaced = await own`
        update storage.objects set updated_at = now() where bucket_id = ${bucket} and name = ${name} returning id`;
      if (replaced.length === 0) {
        await own`
          insert into storage.objects (bucket_id, name, owner, owner_id) values (${bucket}, ${name}, ${claims.sub}, ${claims.sub})`;
      }
      throw takenBack;
    });
    return attempt.catch((error) => {
      if (error === takenBack || error.code === "23505") return true; // whether it may be replaced was asked before
      if (error.code === "42501") return false;
      throw error;
    });
  }

  /** Keeps what a caller says of a file of their own accord, which Lite leaves out. */
  async #keepMetadata(request, response) {
    const given = request.headers.get("x-metadata");
    if (given === null || !response.ok) return response;
    const body = await response.clone().json().catch(() => null);
    const metadata = readMetadata(given);
    if (metadata !== null && typeof body?.Id === "string") {
      await this.#sql`update storage.objects set user_metadata = ${this.#sql.json(metadata)} where id = ${body.Id}`;
    }
    return response;
  }
}

function problemOfList(asked) {
  if (typeof asked?.prefix !== "string") return "body must have required property 'prefix'";
  const { prefix, limit = 1, offset = 0, search = "", sortBy = {} } = asked;
  if (!Number.isInteger(limit) || limit < 1) return "body/limit must be >= 1";
  if (!Number.isInteger(offset) || offset < 0) return "body/offset must be >= 0";
  if (offset > Number.MAX_SAFE_INTEGER) return "body/offset must be <= 9007199254740991";
  if (typeof search !== "string") return "body/search must be string";
  if (/\0/.test(prefix + search)) return "body/prefix and body/search must not hold a NUL";
  if (!SORTABLE.includes(sortBy?.column ?? "name")) return "body/sortBy/column must be equal to one of the allowed values";
  if (!["asc", "desc"].includes(sortBy?.order ?? "asc")) return "body/sortBy/order must be equal to one of the allowed values";
  return null;
}

function readMetadata(encoded) {
  try {
    const value = JSON.parse(Buffer.from(encoded, "base64").toString("utf8"));
    return typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

function disposition(name) {
  if (name === "") return "attachment;";
  const encoded = encodeURIComponent(name);
  return `attachment; filename=${encoded}; filename*=UTF-8''${encoded}`;
}

// Anything that is no text is Lite's to refuse.
const isStorable = (name) => typeof name !== "string" || name === "" || isSafeKey(name);

const noBucket = () => storageRefusal(404, "Bucket not found", "NoSuchBucket", "Bucket not found");

/** A refusal of Lite with the code and in the words of a hosted project; any other answer as it is. */
async function inWords(response, method) {
  if (response.status < 400 || method === "HEAD") return response;
  if (!(response.headers.get("content-type") ?? "").startsWith("application/json")) return response;
  const body = await response.json();
  const { error, message = "", statusCode = String(response.status) } = body;
  const code = body.code ?? CODES[error] ?? (response.status >= 500 ? "InternalError" : undefined);
  const said = code === "EntityTooLarge" ? TOO_LARGE : message;
  const headers = new Headers(response.headers);
  headers.delete("content-length");
  return Response.json({ ...body, statusCode, error, code, message: said }, { status: response.status, headers });
}
