"use client";

import { type QueryClient, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState, useSyncExternalStore } from "react";
import { toastError } from "@/components/ui/toaster";
import { cachedSession, upsertSession } from "@/features/sessions/data/cache";
import { refreshSession, settleSession } from "@/features/sessions/data/queries";
import { sessionTitle } from "@/features/sessions/title";
import { announce, useAnnouncements } from "@/lib/broadcast";
import { notifyAnswerReady } from "@/lib/notifications";
import { paths } from "@/lib/paths";
import { conversationApi } from "../conversation-api";
import { dropSentDraft } from "../drafts";
import { sentences } from "../sentences";
import { ConversationController, type Place } from "./controller";
import type { ConversationSnapshot } from "./conversation-state";

// The first line becomes the name a moment after the first words.
const NAME_AFTER_MS = 700;
const SHORTEST_REFRESH_MS = 3000;

/** Takes text that could not be sent back into the message box. */
export type ReturnText = { current: ((text: string) => void) | null };

/**
 * The conversation of an address: `sessionId` null is a new chat, which stays the same conversation when its first
 * message makes it a session.
 */
export function useConversation(
  sessionId: string | null,
  place: Place | null,
  returnText: ReturnText,
): { controller: ConversationController; snapshot: ConversationSnapshot } {
  const queryClient = useQueryClient();
  const [kept, setKept] = useState(() => createController(sessionId, place, queryClient, returnText));
  let controller = kept;
  if (!controller.belongsTo(sessionId)) {
    controller = createController(sessionId, place, queryClient, returnText);
    setKept(controller);
  }
  useEffect(() => {
    controller.attach();
    return () => controller.detach();
  }, [controller]);
  useEffect(() => {
    controller.settleAddress(sessionId);
    controller.visit(place);
  }, [controller, sessionId, place]);
  useAnnouncements(controller.onAnnouncement);
  useEffect(() => {
    let refreshedAt = Date.now();
    const look = () => {
      const isSoon = Date.now() - refreshedAt < SHORTEST_REFRESH_MS;
      if (document.hidden || (isSoon && !controller.isStale)) return;
      refreshedAt = Date.now();
      void controller.refresh();
    };
    window.addEventListener("focus", look);
    window.addEventListener("online", look);
    document.addEventListener("visibilitychange", look);
    return () => {
      window.removeEventListener("focus", look);
      window.removeEventListener("online", look);
      document.removeEventListener("visibilitychange", look);
    };
  }, [controller]);
  const snapshot = useSyncExternalStore(controller.subscribe, controller.getSnapshot, controller.getSnapshot);
  return { controller, snapshot };
}

function createController(
  sessionId: string | null,
  place: Place | null,
  queryClient: QueryClient,
  returnText: ReturnText,
): ConversationController {
  const controller: ConversationController = new ConversationController(
    sessionId,
    {
      api: conversationApi(),
      announce,
      onCreated: (session) => {
        upsertSession(queryClient, session);
        // Only the address changes; the page with its stream stays. Somebody who has gone elsewhere is left there.
        if (controller.isAttached()) window.history.replaceState(null, "", paths.chat(session.id));
      },
      onAccepted: (id, content) => {
        dropSentDraft(id, content);
        if (sessionId === null) dropSentDraft(null, content);
      },
      onReturned: (content) => returnText.current?.(content),
      onBegun: (id) => {
        setTimeout(() => void refreshSession(queryClient, id).catch(() => undefined), NAME_AFTER_MS);
      },
      onAnswered: (id) => {
        settleSession(queryClient, id);
        const name = sessionTitle(cachedSession(queryClient, id));
        if (document.hidden) notifyAnswerReady(id, sentences.turn.isReady, name);
      },
      onError: toastError,
    },
    place,
  );
  return controller;
}
