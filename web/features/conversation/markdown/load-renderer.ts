import type { ComponentType } from "react";

type Renderer = ComponentType<{ text: string; streaming: boolean }>;

const RETRY_MS = 5000;
/** Long enough for what the page itself needs. */
const REST_MS = 5000;

let loaded: Renderer | null = null;
let loading: Promise<void> | null = null;
const listeners = new Set<() => void>();

/** The renderer, once it is there. */
export function renderer(): Renderer | null {
  return loaded;
}

export function onRendererLoaded(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Loads the renderer, once however often it is called. The text is readable without it, so a failure is only repeated. */
export function loadRenderer(): Promise<void> {
  loading ??= import("./rendered").then(
    (module) => {
      loaded = module.Rendered;
      for (const listener of listeners) listener();
    },
    () => {
      setTimeout(() => {
        loading = null;
        if (listeners.size > 0) void loadRenderer();
      }, RETRY_MS);
    },
  );
  return loading;
}

// Whoever has this module on the page will soon show an answer: the renderer comes once the page has come to rest.
if (typeof window !== "undefined" && typeof window.requestIdleCallback === "function") {
  setTimeout(() => window.requestIdleCallback(() => void loadRenderer()), REST_MS);
}
