"use client";

import { useSyncExternalStore } from "react";

let words = "";
const listeners = new Set<() => void>();

/** Says something to screen readers, when they have finished what they are saying. */
export function sayPolitely(next: string): void {
  // The same words a second time would be no change, and so not be heard.
  words = next === words ? `${next}\u00a0` : next;
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** The one place from which the conversation speaks; live regions in every message would be too many. */
export function LiveRegion() {
  const now = useSyncExternalStore(
    subscribe,
    () => words,
    () => "",
  );
  return (
    <p aria-live="polite" className="sr-only">
      {now}
    </p>
  );
}
