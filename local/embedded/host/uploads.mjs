// Uploads as forms: the clients send a file as multipart/form-data, Lite understands that on one of its three routes only.
import { storageRefusal } from "./refusals.mjs";

const OBJECT = "/storage/v1/object/";
export const MAX_FILE_BYTES = 50 * 1024 * 1024;
const FORM_OVERHEAD_BYTES = 64 * 1024;

/** The same request with the form's file as its plain body; any other request as it is; a Response when it is refused. */
export async function unwrapUpload(request, { pathname }) {
  const type = request.headers.get("content-type") ?? "";
  const isUpload = request.method === "POST" || request.method === "PUT";
  if (!isUpload || !pathname.startsWith(OBJECT)) return request;
  // Lite knows a file's size from this header alone, so a body that comes in chunks would pass every bucket's limit.
  if (request.headers.has("transfer-encoding")) {
    return storageRefusal(400, "MissingContentLength", "MissingContentLength", "Send the length of the file.");
  }
  if (!type.startsWith("multipart/form-data")) return request;
  const length = Number(request.headers.get("content-length") ?? Number.NaN);
  if (Number.isNaN(length)) return storageRefusal(400, "MissingContentLength", "MissingContentLength", "Send the length of the form.");
  if (length > MAX_FILE_BYTES + FORM_OVERHEAD_BYTES) {
    return storageRefusal(413, "Payload too large", "EntityTooLarge", "The object exceeded the maximum allowed size");
  }
  const form = await request.formData().catch(() => null);
  const file = form && [...form.values()].find((value) => value instanceof Blob);
  if (!file) return storageRefusal(400, "InvalidRequest", "InvalidRequest", "The form holds no file.");
  const headers = new Headers(request.headers);
  headers.set("content-type", file.type || "application/octet-stream");
  headers.set("content-length", String(file.size));
  const metadata = form.get("metadata");
  if (typeof metadata === "string") headers.set("x-metadata", Buffer.from(metadata).toString("base64"));
  const maxAge = form.get("cacheControl");
  if (typeof maxAge === "string" && /^\d+$/.test(maxAge)) headers.set("cache-control", `max-age=${maxAge}`);
  return new Request(request.url, { method: request.method, headers, body: file.stream(), duplex: "half" });
}
