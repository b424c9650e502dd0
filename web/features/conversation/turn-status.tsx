"use client";

import { WifiOff } from "lucide-react";
import { useEffect, useRef } from "react";
import { ErrorNotice } from "@/components/ui/error-notice";
import type { ConversationSnapshot } from "./controller/conversation-state";
import { LiveRegion, sayPolitely } from "./live-region";
import type { LiveStore } from "./runs/live-turn";
import { sentences } from "./sentences";

type TurnStatusProps = { snapshot: ConversationSnapshot; live: LiveStore; onRetry: () => void };

/** Says how the answer goes: in words above the message box when the connection is lost, and quietly to screen readers. */
export function TurnStatus({ snapshot, live, onRetry }: TurnStatusProps) {
  const { turn, isReconnecting, followError } = snapshot;
  useTurnAnnouncements(turn, live);
  return (
    <div className="mx-auto w-full max-w-3xl px-4 empty:hidden">
      <div role="status">
        {isReconnecting ? (
          <p className="flex items-center gap-2 py-2 text-sm text-muted-foreground">
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

/** Announces the beginning and the end of an answer, not each word of it. */
function useTurnAnnouncements(turn: ConversationSnapshot["turn"], live: LiveStore): void {
  const wasBusy = useRef(false);
  const isBusy = turn !== "idle";
  useEffect(() => {
    if (isBusy === wasBusy.current) return;
    wasBusy.current = isBusy;
    sayPolitely(isBusy ? sentences.turn.isAnswering : sentences.turn.hasEnded);
    if (!isBusy) return;
    // A second word when text begins to come, for it may take long.
    const stop = live.subscribe(() => {
      if ((live.getSnapshot()?.parts.length ?? 0) === 0) return;
      sayPolitely(sentences.turn.hasBegun);
      stop();
    });
    return stop;
  }, [isBusy, live]);
}
