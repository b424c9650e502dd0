// Stored objects as files. Names are hashed, so a key can be neither a path outside the folder nor collide with a folder.
import { AsyncLocalStorage } from "node:async_hooks";
import { createHash, randomUUID } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { Readable, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { checkContent } from "./content-types.mjs";

const MAX_KEY_BYTES = 1024;

class StorageFault extends Error {
  /** error: what it is called; code: the same in the newer way, where it is no other fault's. */
  constructor(status, error, message, code) {
    super(message);
    this.status = status;
    this.error = error;
    this.code = code;
  }

  toJSON() {
    return { statusCode: String(this.status), error: this.error, code: this.code, message: this.message };
  }
}

// What Lite does not hand through between a request and the adapter below: which part is asked for, what became of it,
// and why a file is refused, which Lite would call an error of its own.
const transfers = new AsyncLocalStorage();

/** The answer of Lite to a request, with what the adapter has found out. */
export async function withTransfer({ method, headers }, forward) {
  const transfer = { asked: method === "GET" ? headers : new Headers(), status: 200, headers: null, fault: null };
  const response = await transfers.run(transfer, forward);
  if (transfer.fault) return Response.json(transfer.fault, { status: 400 });
  if (transfer.status === 304) return new Response(null, { status: 304, headers: transfer.headers });
  if (transfer.status === 206 && response.ok) return new Response(response.body, { status: 206, headers: response.headers });
  return response;
}

/** Keeps why a file is refused, and raises it. */
function refuse(fault) {
  const transfer = transfers.getStore();
  if (transfer) transfer.fault = fault;
  throw fault;
}

/**
 * The first and last byte of a Range header, as [from, to]; undefined for one that is none or names several parts, which
 * is answered with all; null for one that begins behind the end.
 */
export function partOf(range, size) {
  const [, from, to] = /^bytes=(\d*)-(\d*)$/.exec(range ?? "") ?? [];
  if (from === undefined || (from === "" && to === "") || (from !== "" && to !== "" && Number(to) < Number(from))) return undefined;
  const [first, last] = from === "" ? [Math.max(0, size - Number(to)), size - 1] : [Number(from), Math.min(to === "" ? Infinity : Number(to), size - 1)];
  return first > last ? null : [first, last];
}

/** Whether the caller has the file already, as the headers of a request say. */
function isKnown(asked, { eTag, lastModified }) {
  const known = asked.get("if-none-match");
  if (known !== null) return known.split(",").some((each) => ["*", eTag].includes(each.trim().replace(/^W\//, "")));
  const since = Date.parse(asked.get("if-modified-since") ?? "");
  return Math.floor(lastModified.getTime() / 1000) * 1000 <= since;
}

/** True for a key that a hosted project would take too: no empty or dot segment, no backslash, no control character. */
export function isSafeKey(key) {
  if (typeof key !== "string" || key === "" || Buffer.byteLength(key) > MAX_KEY_BYTES) return false;
  if (/[\p{Cc}\\]/u.test(key)) return false;
  return key.split("/").every((segment) => segment !== "" && segment !== "." && segment !== "..");
}

const tooLarge = () => new StorageFault(413, "Payload too large", "The object exceeded the maximum allowed size");

const hash = (text) => createHash("sha256").update(text).digest("hex");
const absent = (error) => error.code === "ENOENT";

/** The storage adapter of Lite: `<root>/<bucket hash>/<key hash>.json` describes an object and names its file of bytes. */
export class FileStorageAdapter {
  driver = null;
  #root;
  #rulesOf;

  /** rulesOf: returns what may lie in a bucket, as {types, bytes}; null stands for anything. */
  constructor(root, rulesOf) {
    this.#root = path.resolve(root);
    this.#rulesOf = rulesOf;
  }

  async getObject(bucket, key) {
    const { folder, record } = await this.#read(bucket, key);
    const metadata = describe(record);
    const transfer = transfers.getStore() ?? { asked: new Headers() };
    if (isKnown(transfer.asked, metadata)) {
      transfer.status = 304;
      transfer.headers = { etag: metadata.eTag, "last-modified": metadata.lastModified.toUTCString() };
      return { metadata };
    }
    const file = path.join(folder, record.file);
    const part = partOf(transfer.asked.get("range"), record.size);
    if (part === null) refuse(new StorageFault(416, "The requested range is not satisfiable", "InvalidRange", "S3Error"));
    if (part === undefined) return { metadata, body: Readable.toWeb(createReadStream(file)) };
    const [start, end] = part;
    transfer.status = 206;
    const length = end - start + 1;
    const contentRange = `bytes ${start}-${end}/${record.size}`;
    return { metadata: { ...metadata, contentLength: length, contentRange }, body: Readable.toWeb(createReadStream(file, { start, end })) };
  }

  async uploadObject(bucket, key, _version, body, contentType, cacheControl) {
    const { folder, description } = this.#place(bucket, key);
    const { types, bytes } = await this.#rulesOf(bucket);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const file = `${randomUUID()}.bin`;
    const digest = createHash("sha256");
    let size = 0;
    const meter = new Transform({
      transform(chunk, _encoding, done) {
        digest.update(chunk);
        size += chunk.length;
        // The rest is read and dropped: a sender who is cut off hears no reason.
        if (bytes !== null && size > bytes) done();
        else done(null, chunk);
      },
    });
    const target = path.join(folder, file);
    try {
      await pipeline(toReadable(body), meter, createWriteStream(target, { mode: 0o600, flags: "wx", flush: true }));
      if (bytes !== null && size > bytes) refuse(tooLarge());
      const problem = types && (await checkContent(target, contentType, types));
      if (problem) refuse(new StorageFault(415, "invalid_mime_type", problem));
    } catch (error) {
      await rm(target, { force: true });
      throw error;
    }
    const record = {
      key,
      file,
      size,
      mimetype: contentType,
      cacheControl,
      eTag: `"${digest.digest("hex")}"`,
      lastModified: new Date().toISOString(),
    };
    await this.#replace(folder, description, record);
    return describe(record);
  }

  async deleteObject(bucket, key) {
    const { folder, description } = this.#place(bucket, key);
    const previous = await readRecord(description);
    await rm(description, { force: true });
    if (previous) await rm(path.join(folder, previous.file), { force: true });
  }

  async deleteObjects(bucket, keys) {
    for (const key of keys) await this.deleteObject(bucket, key);
  }

  async copyObject(sourceBucket, source, _version, destinationBucket, destination) {
    const { folder, record } = await this.#read(sourceBucket, source);
    const bytes = createReadStream(path.join(folder, record.file));
    const copy = await this.uploadObject(
      destinationBucket, destination, undefined, bytes, record.mimetype, record.cacheControl,
    );
    return { httpStatusCode: 200, eTag: copy.eTag, lastModified: copy.lastModified };
  }

  async headObject(bucket, key) {
    return describe((await this.#read(bucket, key)).record);
  }

  async privateAssetUrl() {
    throw new StorageFault(501, "not_implemented", "Image transformations are not part of the embedded Supabase.");
  }

  #place(bucket, key) {
    if (!isSafeKey(bucket) || !isSafeKey(key)) refuse(new StorageFault(400, "Invalid key", "This object key is not allowed."));
    const folder = path.join(this.#root, hash(bucket));
    return { folder, description: path.join(folder, `${hash(key)}.json`) };
  }

  async #read(bucket, key) {
    const { folder, description } = this.#place(bucket, key);
    const record = await readRecord(description);
    if (!record) throw new StorageFault(404, "not_found", "Object not found");
    return { folder, record };
  }

  // The description changes in one rename, so a reader sees the old object or the new one.
  async #replace(folder, description, record) {
    const previous = await readRecord(description);
    const temporary = path.join(folder, `${record.file}.json`);
    await writeFile(temporary, JSON.stringify(record), { mode: 0o600, flush: true });
    await rename(temporary, description);
    if (previous) await rm(path.join(folder, previous.file), { force: true });
  }
}

async function readRecord(description) {
  try {
    const record = JSON.parse(await readFile(description, "utf8"));
    await stat(path.join(path.dirname(description), record.file));
    return record;
  } catch (error) {
    if (absent(error)) return null;
    throw error;
  }
}

function describe(record) {
  return {
    cacheControl: record.cacheControl,
    contentLength: record.size,
    size: record.size,
    mimetype: record.mimetype,
    lastModified: new Date(record.lastModified),
    eTag: record.eTag,
    httpStatusCode: 200,
  };
}

function toReadable(body) {
  if (body instanceof Readable) return body;
  if (body instanceof ReadableStream) return Readable.fromWeb(body);
  if (body instanceof Blob) return Readable.fromWeb(body.stream());
  return Readable.from([Buffer.from(body)]);
}
