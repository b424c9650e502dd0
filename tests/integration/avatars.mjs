// Does with supabase-js what the web app does with pictures: reads [{token, verb, ...}] and prints what came of each.
import { createRequire } from "node:module";
import process from "node:process";
import { text } from "node:stream/consumers";

const { createClient } = createRequire(new URL("../../web/package.json", import.meta.url))("@supabase/supabase-js");
const { url, key, steps } = JSON.parse(await text(process.stdin));

// A file is taken only if it begins as its type does.
const MARKS = {
  "image/webp": [..."RIFF\x10\0\0\0WEBPVP8 "].map((letter) => letter.charCodeAt(0)),
  "image/png": [...Buffer.from(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002000001e221bc33", "hex",
  )],
  "image/jpeg": [0xff, 0xd8, 0xff, 0xe0],
};

const verbs = {
  upload: (bucket, { path, type, claims = type, bytes, upsert }) => {
    const content = new Uint8Array(bytes).fill(7);
    content.set((MARKS[type] ?? []).slice(0, bytes));
    return bucket.upload(path, new Blob([content], { type: claims }), { contentType: claims, upsert });
  },
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
