// Writes the limits in bytes that an OpenAPI document states (`x-max-bytes`) into a module, by schema and field.
import { readFileSync, writeFileSync } from "node:fs";
import process from "node:process";

const [document, output] = process.argv.slice(2);
const { components } = JSON.parse(readFileSync(document, "utf8"));
const limits = {};
for (const [schema, { properties = {} }] of Object.entries(components.schemas)) {
  for (const [field, { "x-max-bytes": bytes }] of Object.entries(properties)) {
    if (bytes !== undefined) limits[schema] = { ...limits[schema], [field]: bytes };
  }
}
const comment = "/** Most bytes of UTF-8 of a request's field. Made from the gateway's OpenAPI document. */";
writeFileSync(output, `${comment}\nexport const MAX_BYTES = ${JSON.stringify(limits, null, 2)} as const;\n`);
