// Writes a .br and a .gz beside each file of the export that is worth it; the gateway sends them as they are.
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import process from "node:process";
import { promisify } from "node:util";
import { brotliCompress, constants, gzip } from "node:zlib";

const TEXT = new Set([".css", ".html", ".js", ".json", ".map", ".svg", ".txt", ".webmanifest", ".xml"]);
// Below this a response fits into one packet either way.
const SMALLEST_BYTES = 1024;
const AT_ONCE = 8;

const packers = {
  ".br": (data) =>
    promisify(brotliCompress)(data, {
      params: {
        [constants.BROTLI_PARAM_MODE]: constants.BROTLI_MODE_TEXT,
        [constants.BROTLI_PARAM_SIZE_HINT]: data.length,
      },
    }),
  ".gz": (data) => promisify(gzip)(data, { level: constants.Z_BEST_COMPRESSION }),
};

async function pack(file) {
  const data = await readFile(file);
  for (const [suffix, packer] of Object.entries(packers)) {
    const packed = data.length >= SMALLEST_BYTES ? await packer(data) : data;
    if (packed.length < data.length * 0.95) await writeFile(file + suffix, packed);
    else await rm(file + suffix, { force: true });
  }
}

const folder = path.resolve(process.argv[2] ?? "out");
const entries = await readdir(folder, { recursive: true, withFileTypes: true });
const files = entries
  .filter((entry) => entry.isFile() && TEXT.has(path.extname(entry.name)))
  .map((entry) => path.join(entry.parentPath, entry.name));
const queue = files.values();
await Promise.all(
  Array.from({ length: AT_ONCE }, async () => {
    for (const file of queue) await pack(file);
  }),
);
