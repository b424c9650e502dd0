"use client";

import { useSyncExternalStore } from "react";

// Sessions that have left the lists but not yet the server: until then "Undo" brings them back.
let pending: ReadonlySet<string> = new Set();
const listeners = new Set<() => void>();

function publish(next: ReadonlySet<string>): void {
  pending = next;
  for (const listener of listeners) listener();
}

/** Keeps a session out of all lists of this tab. */
export function hideSession(id: string): void {
  publish(new Set(pending).add(id));
}

/** Lets a session be seen again. */
export function showSession(id: string): void {
  const rest = new Set(pending);
  if (rest.delete(id)) publish(rest);
}

const nothing: ReadonlySet<string> = new Set();

/** The ids of the sessions that are being deleted. */
export function usePendingDeletions(): ReadonlySet<string> {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => pending,
    () => nothing,
  );
}
