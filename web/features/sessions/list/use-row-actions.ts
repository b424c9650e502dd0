"use client";

import { type RefObject, useCallback, useEffect, useMemo, useRef, useState } from "react";
import { toast } from "@/components/ui/toaster";
import { paths } from "@/lib/paths";
import { useDeleteSession } from "../data/delete";
import { useArchiveSession, useRenameSession } from "../data/mutations";
import { sentences } from "../sentences";
import { sessionTitle } from "../title";
import { useCurrentChatId, useOpen } from "../use-open-chat";
import type { RowActions } from "./row-actions";

/** The links of a list's rows, in the order they are seen. */
export function rowLinks(list: HTMLElement | null): HTMLAnchorElement[] {
  return [...(list?.querySelectorAll<HTMLAnchorElement>("a[data-session-id]") ?? [])];
}

/**
 * Puts the focus on a row as soon as it has nowhere else to be. Rows move (a change makes a chat the newest) and a moved
 * element loses the focus, so the request is kept for a moment.
 */
function useFocusRequest(list: RefObject<HTMLElement | null>): (id: string | undefined) => void {
  const requested = useRef<{ id: string; until: number } | null>(null);
  useEffect(() => {
    if (!requested.current) return;
    const link = rowLinks(list.current).find(({ dataset }) => dataset.sessionId === requested.current?.id);
    const focused = document.activeElement;
    if (focused === link || focused?.closest('[role="menu"]')) return;
    if (focused && focused !== document.body) requested.current = null;
    else if (Date.now() > requested.current.until) requested.current = null;
    else link?.focus();
  });
  return useCallback((id) => {
    requested.current = id ? { id, until: Date.now() + 2000 } : null;
  }, []);
}

/** The neighbour that takes the focus when a row goes away: the next one, or the one before. */
function neighbour(list: HTMLElement | null, id: string): string | undefined {
  const links = rowLinks(list);
  const place = links.findIndex((link) => link.dataset.sessionId === id);
  return (links[place + 1] ?? links[place - 1])?.dataset.sessionId;
}

/** What the rows of a list of chats do, and which of them is being renamed or has the focus. */
export function useRowActions(list: RefObject<HTMLElement | null>, onNavigate?: () => void) {
  const [renamingId, setRenamingId] = useState<string | null>(null);
  const [focusedId, setFocusedId] = useState<string | null>(null);
  const currentId = useCurrentChatId();
  const open = useOpen();
  const { mutate: rename } = useRenameSession();
  const { mutate: archive } = useArchiveSession();
  const remove = useDeleteSession();
  const focusRow = useFocusRequest(list);

  const newest = { currentId, open, rename, archive, remove, onNavigate };
  const latest = useRef(newest);
  useEffect(() => {
    latest.current = newest;
  });

  const actions = useMemo<RowActions>(
    () => ({
      open: (session) => {
        latest.current.open(paths.chat(session.id));
        latest.current.onNavigate?.();
      },
      focus: setFocusedId,
      startRename: setRenamingId,
      endRename: (id, byKeyboard) => {
        setRenamingId(null);
        if (byKeyboard) focusRow(id);
      },
      rename: (session, name) => latest.current.rename({ session, name }),
      archive: (session) => {
        const archived = !session.is_archived;
        focusRow(neighbour(list.current, session.id));
        latest.current.archive(
          { session, archived },
          {
            onSuccess: (stored) => {
              const done = archived ? sentences.changes.archived : sentences.changes.restored;
              toast(done(sessionTitle(session)), {
                action: {
                  label: sentences.changes.undo,
                  onClick: () => latest.current.archive({ session: stored, archived: !archived }),
                },
              });
            },
          },
        );
      },
      remove: (session) => {
        const wasOpen = latest.current.currentId === session.id;
        focusRow(neighbour(list.current, session.id));
        latest.current.remove(session, {
          onUndo: () => {
            // Back to it, unless the person has opened another chat meanwhile.
            if (wasOpen && !latest.current.currentId) latest.current.open(paths.chat(session.id));
          },
        });
        if (wasOpen) latest.current.open(paths.newChat);
      },
    }),
    [list, focusRow],
  );

  return { actions, renamingId, focusedId, currentId };
}
