"use client";

import { useEffect, useRef } from "react";

/** What tabs of the same browser tell each other. */
export type Announcement =
  | { kind: "sessions-changed" }
  | { kind: "messages-changed"; sessionId: string }
  | { kind: "run-started"; sessionId: string; runId: string }
  | { kind: "signed-out" };

const CHANNEL = "concerto";

// A BroadcastChannel does not hear itself, but it does hear others of the same tab; one for all keeps a tab from
// answering its own announcements.
let channel: BroadcastChannel | null = null;

function openChannel(): BroadcastChannel | null {
  if (typeof BroadcastChannel === "undefined") return null;
  channel ??= new BroadcastChannel(CHANNEL);
  return channel;
}

function isAnnouncement(data: unknown): data is Announcement {
  return typeof data === "object" && data !== null && "kind" in data;
}

/** Tells the other tabs; this one hears nothing of it. */
export function announce(announcement: Announcement): void {
  openChannel()?.postMessage(announcement);
}

/** Calls `listener` for each announcement of another tab. */
export function useAnnouncements(listener: (announcement: Announcement) => void): void {
  const newest = useRef(listener);
  useEffect(() => {
    newest.current = listener;
  });
  useEffect(() => {
    const opened = openChannel();
    if (!opened) return;
    const onMessage = (event: MessageEvent<unknown>) => {
      if (isAnnouncement(event.data)) newest.current(event.data);
    };
    opened.addEventListener("message", onMessage);
    return () => opened.removeEventListener("message", onMessage);
  }, []);
}
