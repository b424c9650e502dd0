"use client";

import { type QueryClient, useQueryClient } from "@tanstack/react-query";
import { useCallback } from "react";
import { toast, toastError } from "@/components/ui/toaster";
import { api, unwrap } from "@/lib/api/client";
import { ApiError } from "@/lib/api/errors";
import { newTraceparent } from "@/lib/api/trace";
import type { Session } from "@/lib/api/types";
import { readSession } from "@/lib/auth/store";
import { announce } from "@/lib/broadcast";
import { sentences } from "../sentences";
import { sessionTitle } from "../title";
import { dropSession, sessionKeys } from "./cache";
import { hideSession, showSession } from "./deletions";

/** How long a deletion can be undone. */
export const UNDO_MS = 7000;

type Deletion = {
  session: Session;
  queryClient: QueryClient;
  toastId: number;
  onFailure?: (() => void) | undefined;
};

const deletions = new Map<string, Deletion>();

async function send(deletion: Deletion): Promise<void> {
  const { session, queryClient } = deletion;
  try {
    await unwrap(api.DELETE("/sessions/{session_id}", { params: { path: { session_id: session.id } } }));
  } catch (error) {
    if (!(error instanceof ApiError && error.code === 404)) {
      showSession(session.id);
      deletion.onFailure?.();
      toastError(error, sentences.changes.deleteFailed(sessionTitle(session)));
      void queryClient.invalidateQueries({ queryKey: sessionKeys.lists });
      return;
    }
  }
  // A list that is on its way was read before and may still hold it.
  await queryClient.cancelQueries({ queryKey: sessionKeys.lists });
  dropSession(queryClient, session.id);
  showSession(session.id);
  announce({ kind: "sessions-changed" });
}

function take(id: string): Deletion | undefined {
  const deletion = deletions.get(id);
  if (!deletion) return undefined;
  deletions.delete(id);
  toast.dismiss(deletion.toastId);
  return deletion;
}

function undo(id: string): boolean {
  if (!take(id)) return false;
  showSession(id);
  return true;
}

function commit(id: string): void {
  const deletion = take(id);
  if (deletion) void send(deletion);
}

/** Sends every deletion that still could be undone, for instance before logging out. */
export async function flushDeletions(): Promise<void> {
  const taken = [...deletions.keys()].map(take).filter((deletion) => deletion !== undefined);
  await Promise.all(taken.map(send));
}

/** The same when the page is being left: requests that outlive it, and nobody to hear of a failure. */
function flushDeletionsOnLeave(): void {
  // Nothing can be waited for here, so the token is taken as it is.
  const token = readSession()?.accessToken;
  for (const id of [...deletions.keys()]) {
    const deletion = take(id);
    if (!deletion || !token) continue;
    const headers = { Authorization: `Bearer ${token}`, traceparent: newTraceparent() };
    void fetch(`/sessions/${id}`, { method: "DELETE", keepalive: true, headers }).catch(() => undefined);
    dropSession(deletion.queryClient, id);
    showSession(id);
    announce({ kind: "sessions-changed" });
  }
}

if (typeof window !== "undefined") window.addEventListener("pagehide", flushDeletionsOnLeave);

/**
 * Deletes a session: it leaves the lists at once, the server hears of it when it can no longer be undone.
 * `onUndo` runs when the person takes it back or the server refuses.
 */
export function useDeleteSession(): (session: Session, options?: { onUndo?: () => void }) => void {
  const queryClient = useQueryClient();
  return useCallback(
    (session, options = {}) => {
      const { id } = session;
      if (deletions.has(id)) return;
      hideSession(id);
      const toastId = toast(sentences.changes.deleted(sessionTitle(session)), {
        duration: UNDO_MS,
        action: {
          label: sentences.changes.undo,
          onClick: () => {
            if (undo(id)) options.onUndo?.();
          },
        },
        onGone: () => commit(id),
      });
      deletions.set(id, { session, queryClient, toastId, onFailure: options.onUndo });
    },
    [queryClient],
  );
}
