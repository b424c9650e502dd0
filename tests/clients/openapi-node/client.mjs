// A client in TypeScript that @hey-api/openapi-ts generates from the document: it makes every call that there is.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { feature, settings } from "./features.mjs";

const openapi = await (await fetch(`${settings.CONCERTO_URL}/openapi.json`)).json();
const walk = JSON.parse(readFileSync("walk.json", "utf8"));
const known = { email: `walk-${randomUUID()}@example.com`, password: settings.CONCERTO_PASSWORD };
const run = (...command) => execFileSync(command[0], command.slice(1), { stdio: ["ignore", "pipe", "pipe"] });
const plugins = ["@hey-api/client-fetch", "@hey-api/sdk", "@hey-api/typescript"].flatMap((name) => ["-p", name]);
let sdk = {};
let client;

/** A value of the walk with what is known by now. */
function filled(value) {
  if (Array.isArray(value)) return value.map(filled);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, filled(each)]));
  }
  return typeof value === "string" && value.startsWith("$") ? known[value.slice(1)] : value;
}

/** Makes one call of the walk and checks its answer. */
async function make(step) {
  const wantsEvents = "events" in step;
  const { path, query, body } = filled(step);
  const { response, data, error } = await sdk[step.operation.toLowerCase()]({
    ...{ client, path, query, body },
    headers: { Accept: wantsEvents ? "text/event-stream" : "application/json" },
    parseAs: wantsEvents ? "stream" : "auto",
  });
  assert.equal(response.status, step.status ?? 200, JSON.stringify(error));
  if (response.status >= 400) assert.ok(error.error.details[0].reason);
  if (wantsEvents) {
    const text = await new Response(data).text();
    const seen = new Set([...text.matchAll(/^event: (.*)$/gm)].map(([, name]) => name));
    assert.deepEqual([...seen], step.events);
    if (seen.size === 0) assert.ok(text.endsWith("data: [DONE]\n\n"), text.slice(-200));
  }
  for (const [name, place] of Object.entries(step.save ?? {})) {
    known[name] = place.split(".").reduce((value, key) => value[key], data);
  }
}

await feature("generation", async () => {
  writeFileSync("openapi.json", JSON.stringify(openapi));
  run("openapi-ts", "-i", "openapi.json", "-o", "generated", ...plugins);
});

await feature("the generated types hold", async () => {
  const options = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--lib", "es2023,dom,dom.iterable"];
  try {
    run("tsc", ...options, "--module", "esnext", "--moduleResolution", "bundler", "generated/sdk.gen.ts");
  } catch (error) {
    throw new Error(String(error.stdout).slice(0, 2000));
  }
});

await feature("every operation has a function, and is called", async () => {
  writeFileSync("all.ts", 'export * from "./generated/sdk.gen";\nexport { createClient } from "./generated/client";\n');
  run("esbuild", "all.ts", "--bundle", "--platform=node", "--format=esm", "--outfile=all.mjs");
  const { createClient, ...functions } = await import("./all.mjs");
  sdk = Object.fromEntries(Object.entries(functions).map(([name, made]) => [name.toLowerCase(), made]));
  client = createClient({ baseUrl: settings.CONCERTO_URL, auth: (scheme) => (scheme.in === "query" ? undefined : known.token) });
  const names = Object.values(openapi.paths).flatMap((path) => Object.values(path).map((one) => one.operationId.toLowerCase()));
  for (const name of names) assert.equal(typeof sdk[name], "function", name);
  assert.deepEqual([...new Set(walk.map((step) => step.operation.toLowerCase()))].sort(), names.sort());
});

for (const [index, step] of walk.entries()) {
  await feature(`${index + 1}. ${step.operation}${"events" in step ? ", as events" : ""}`, () => make(step));
}
