// @supabase/lite as it is installed, but for a check of its own that stands in the way of a correction made here. The
// version is pinned; another one that reads otherwise ends the start with a word about it.
import { registerHooks } from "node:module";

const PACKAGE = import.meta.resolve("@supabase/lite");
// Addresses are judged in addresses.mjs; Lite's own check asks for a dot behind the @.
const REPLACED = [String.raw`/^[^\s@]+@[^\s@]+\.[^\s@]+$/.test(`, String.raw`/^[^\s@]+@[^\s@]+$/.test(`];

const hooks = registerHooks({
  load(url, context, next) {
    const loaded = next(url, context);
    if (url !== PACKAGE) return loaded;
    const source = String(loaded.source);
    const [found, replacement] = REPLACED;
    if (source.split(found).length !== 2) throw new Error("This version of @supabase/lite checks addresses elsewhere: see lite.mjs");
    return { ...loaded, source: source.replace(found, () => replacement) };
  },
});
export const { App, setExperimental } = await import("@supabase/lite");
export const { createPostgresConnection } = await import("@supabase/lite/postgres");
hooks.deregister();
