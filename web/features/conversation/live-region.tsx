"use client";

import { useSyncExternalStore } from "react";

type Saying = { id: number; words: string };

/** What has just been said. Screen readers read what is added, in its order, and forget nothing that another word follows. */
const MOST_KEPT = 3;
const NOTHING: readonly Saying[] = [];

let said = NOTHING;
const listeners = new Set<() => void>();

/** Says something to screen readers, when they have finished what they are saying. */
export function sayPolitely(words: string): void {
  said = [...said, { id: (said.at(-1)?.id ?? 0) + 1, words }].slice(-MOST_KEPT);
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
    () => said,
    () => NOTHING,
  );
  return (
    <div aria-live="polite" className="sr-only">
      {now.map(({ id, words }) => (
        <p key={id} dir="auto">
          {words}
        </p>
      ))}
    </div>
  );
}
