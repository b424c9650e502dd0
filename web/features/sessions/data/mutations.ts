"use client";

import { type QueryClient, useMutation, useQueryClient } from "@tanstack/react-query";
import { toastError } from "@/components/ui/toaster";
import { api, unwrap } from "@/lib/api/client";
import type { Session } from "@/lib/api/types";
import { sentences } from "../sentences";
import { cachedSession, nextUpdate, putSession, sessionKeys, upsertSession } from "./cache";

type Changes = { name?: string; is_archived?: boolean };

// The number of the newest change of each session: an answer that a later change has overtaken is not shown.
const newestChange = new Map<string, number>();

function beginChange(id: string): number {
  const change = (newestChange.get(id) ?? 0) + 1;
  newestChange.set(id, change);
  return change;
}

function patchSession(id: string, body: Changes): Promise<Session> {
  return unwrap(api.PATCH("/sessions/{session_id}", { params: { path: { session_id: id } }, body }));
}

async function applyAtOnce(queryClient: QueryClient, session: Session, changes: Changes) {
  // A list that is on its way was read before the change and would show it undone.
  await queryClient.cancelQueries({ queryKey: sessionKeys.lists });
  const before = cachedSession(queryClient, session.id) ?? session;
  const change = beginChange(session.id);
  putSession(queryClient, { ...before, ...changes, updated_at: nextUpdate(queryClient) });
  return { before, change };
}

/** Changes a session at once in all lists; puts back what was there when the server refuses. */
function useChangeSession<Input>(
  describe: (input: Input) => { session: Session; changes: Changes },
  failure: (session: Session) => string,
) {
  const queryClient = useQueryClient();
  return useMutation({
    mutationFn: (input: Input) => {
      const { session, changes } = describe(input);
      return patchSession(session.id, changes);
    },
    onMutate: (input: Input) => {
      const { session, changes } = describe(input);
      return applyAtOnce(queryClient, session, changes);
    },
    onSuccess: (stored, _input, context) => {
      if (newestChange.get(stored.id) === context.change) upsertSession(queryClient, stored);
    },
    onError: (error, input, context) => {
      const { session, changes } = describe(input);
      if (context && newestChange.get(session.id) === context.change) {
        const now = cachedSession(queryClient, session.id) ?? context.before;
        const undone = Object.fromEntries(
          Object.keys(changes).map((key) => [key, context.before[key as keyof Changes]]),
        );
        putSession(queryClient, { ...now, ...undone, updated_at: context.before.updated_at });
      }
      toastError(error, failure(session));
    },
    // Whether it failed or a later change overtook it: the server knows what holds. Of a success everything is known.
    onSettled: (_stored, error) => {
      if (error) void queryClient.invalidateQueries({ queryKey: sessionKeys.lists });
    },
  });
}

/** Renames a session, at once in the lists. */
export function useRenameSession() {
  return useChangeSession(
    ({ session, name }: { session: Session; name: string }) => ({
      session,
      changes: { name: name.trim().normalize("NFC") },
    }),
    () => sentences.changes.renameFailed,
  );
}

/** Archives or restores a session, at once in the lists. */
export function useArchiveSession() {
  return useChangeSession(
    ({ session, archived }: { session: Session; archived: boolean }) => ({
      session,
      changes: { is_archived: archived },
    }),
    (session) => (session.is_archived ? sentences.changes.restoreFailed : sentences.changes.archiveFailed),
  );
}
