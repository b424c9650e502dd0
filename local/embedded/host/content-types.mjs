// What a file really is, by its bytes: what a sender declares is only what they say.
import { fileTypeFromFile, supportedMimeTypes } from "file-type";

// What some kinds are as well: an animated PNG is a PNG to whoever shows it.
const ALSO = { "image/apng": "image/png", "image/mpo": "image/jpeg" };
const XML = "application/xml";

/**
 * Returns what is wrong with a file of a bucket that takes some types only; null when it is what it is declared to be.
 * Text has no marks: a type that has none is believed, unless the file has those of another.
 */
export async function checkContent(file, declared, types) {
  if (!types.includes(declared)) return `mime type ${declared} is not supported. Supported: ${types.join(", ")}`;
  const mime = (await fileTypeFromFile(file))?.mime;
  const found = ALSO[mime] ?? mime;
  if (found === declared || (found === XML && declared.endsWith("+xml"))) return null;
  if (found === undefined && !supportedMimeTypes.has(declared)) return null;
  return `The file is not what it is declared to be: ${declared}${found ? `, but ${found}` : ""}.`;
}
