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
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }

  toJSON() {
    return { statusCode: String(this.status), error: this.code, message: this.message };
  }
}

const refusals = new AsyncLocalStorage();

/** The answer of Lite, or why the adapter below has refused a file, which Lite would call an error of its own. */
export async function withRefusals(forward) {
  const kept = { fault: null };
  const response = await refusals.run(kept, forward);
  return kept.fault ? Response.json(kept.fault, { status: 400 }) : response;
}

/** True for a key that a hosted project would take too: no empty or dot segment, no backslash, no control character. */
export function isSafeKey(key) {
  if (typeof key !== "string" || key === "" || Buffer.byteLength(key) > MAX_KEY_BYTES) return false;
  if (/[\p{Cc}\\]/u.test(key)) return false;
  return key.split("/").every((segment) => segment !== "" && segment !== "." && segment !== "..");
}

const tooLarge = (bytes) =>
  new StorageFault(413, "Payload too large", `The object exceeded the maximum allowed size of ${bytes} bytes`);

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

  async getObject(bucket, key, _version, headers = {}) {
    const { folder, record } = await this.#read(bucket, key);
    const metadata = describe(record);
    if (headers.ifNoneMatch && headers.ifNoneMatch === metadata.eTag) {
      return { metadata: { ...metadata, httpStatusCode: 304 }, httpStatusCode: 304 };
    }
    const body = Readable.toWeb(createReadStream(path.join(folder, record.file)));
    return { metadata, httpStatusCode: 200, body };
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
        done(bytes !== null && size > bytes ? tooLarge(bytes) : null, chunk);
      },
    });
    const target = path.join(folder, file);
    try {
      await pipeline(toReadable(body), meter, createWriteStream(target, { mode: 0o600, flags: "wx", flush: true }));
      const problem = types && (await checkContent(target, contentType, types));
      if (problem) throw new StorageFault(415, "invalid_mime_type", problem);
    } catch (error) {
      await rm(target, { force: true });
      const kept = refusals.getStore();
      if (kept && error instanceof StorageFault) kept.fault = error;
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
    if (!isSafeKey(bucket) || !isSafeKey(key)) throw new StorageFault(400, "Invalid key", "This object key is not allowed.");
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
