// Does with supabase-js what the web app does with pictures: reads [{token, verb, ...}] and prints what came of each.
import { createRequire } from "node:module";
import process from "node:process";
import { text } from "node:stream/consumers";

const { createClient } = createRequire(new URL("../../web/package.json", import.meta.url))("@supabase/supabase-js");
const { url, key, steps } = JSON.parse(await text(process.stdin));

const verbs = {
  upload: (bucket, { path, type, bytes, upsert }) =>
    bucket.upload(path, new Blob([new Uint8Array(bytes).fill(7)], { type }), { contentType: type, upsert }),
  list: (bucket, { folder }) => bucket.list(folder),
  remove: (bucket, { path }) => bucket.remove([path]),
  move: (bucket, { path, to }) => bucket.move(path, to),
  see: async (bucket, { path }) => {
    const answer = await fetch(bucket.getPublicUrl(path).data.publicUrl);
    const body = await answer.arrayBuffer();
    return { data: { status: answer.status, type: answer.headers.get("content-type"), bytes: body.byteLength } };
  },
};

const results = [];
for (const { token, verb, ...rest } of steps) {
  const client = createClient(url, key, token ? { accessToken: async () => token } : { auth: { persistSession: false } });
  const { data, error } = await verbs[verb](client.storage.from("avatars"), rest);
  results.push({ data: data ?? null, error: error ? { status: Number(error.status), message: error.message } : null });
}
process.stdout.write(JSON.stringify(results));
