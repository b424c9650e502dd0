"use client";

import { WifiOff } from "lucide-react";
import { useEffect, useRef } from "react";
import { ErrorNotice } from "@/components/ui/error-notice";
import type { ConversationSnapshot } from "./controller/conversation-state";
import { LiveRegion, sayPolitely } from "./live-region";
import type { LiveStore } from "./runs/live-turn";
import { sentences } from "./sentences";
import { type SpokenAnswer, sayAnswer } from "./spoken-answer";

type TurnStatusProps = { snapshot: ConversationSnapshot; live: LiveStore; onRetry: () => void };

/** Says how the answer goes: in words above the message box when the connection is lost, and quietly to screen readers. */
export function TurnStatus({ snapshot, live, onRetry }: TurnStatusProps) {
  const { turn, isReconnecting, followError } = snapshot;
  useTurnAnnouncements(turn, live);
  return (
    <div className="mx-auto w-full max-w-192 px-4 md:px-6 empty:hidden">
      <div role="status">
        {isReconnecting ? (
          <p className="flex items-center gap-2 py-2 text-sm text-ink-2">
            <WifiOff className="size-4 shrink-0" aria-hidden />
            {sentences.turn.reconnecting}
          </p>
        ) : null}
      </div>
      <LiveRegion />
      {followError !== null ? (
        <ErrorNotice className="my-2" title={sentences.turn.followFailed} error={followError} onRetry={onRetry} />
      ) : null}
    </div>
  );
}

/** Announces the beginning of an answer, its sentences as they become whole, and its end. */
function useTurnAnnouncements(turn: ConversationSnapshot["turn"], live: LiveStore): void {
  const answer = useRef<SpokenAnswer | null>(null);
  const isBusy = turn !== "idle";
  useEffect(() => {
    const before = answer.current;
    if (before && before.live !== live) {
      // Another chat is shown now.
      before.stop();
      answer.current = null;
    } else if (before && !isBusy) {
      before.end(sentences.turn.hasEnded);
      answer.current = null;
    }
    if (!isBusy || answer.current) return;
    sayPolitely(sentences.turn.isAnswering);
    answer.current = sayAnswer(live);
  }, [isBusy, live]);
  useEffect(
    () => () => {
      answer.current?.stop();
      answer.current = null;
    },
    [],
  );
}
