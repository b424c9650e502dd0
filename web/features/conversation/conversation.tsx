"use client";

import dynamic from "next/dynamic";
import { useRouter, useSearchParams } from "next/navigation";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { Button } from "@/components/ui/button";
import { EmptyState } from "@/components/ui/empty-state";
import { ErrorNotice } from "@/components/ui/error-notice";
import { ApiError } from "@/lib/api/errors";
import { paths } from "@/lib/paths";
import { useShortcut } from "@/lib/shortcuts";
import { Composer, type ComposerHandle } from "./composer/composer";
import { useChoices } from "./composer/use-choices";
import type { ConversationItem } from "./controller/items";
import { useConversation } from "./controller/use-conversation";
import { ConversationHeader } from "./conversation-header";
import { ConversationSkeleton } from "./conversation-skeleton";
import { copyLastAnswer } from "./messages/copy-button";
import type { MessageActions } from "./messages/message-actions";
import { MessageList } from "./messages/message-list";
import { NewChat } from "./new-chat";
import { sentences } from "./sentences";
import { TurnStatus } from "./turn-status";

// The page of most people's visits need not wait for it.
const WholeChatPage = dynamic(() => import("./whole/whole-chat-page").then((module) => module.WholeChatPage));

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** The chat page: the conversation that the address names, or a new one. */
export function Conversation() {
  const params = useSearchParams();
  const sessionId = params.get("id");
  const messageId = params.get("message");
  const order = Number(params.get("order"));
  // An address that somebody has mistyped is one of nothing, which the server need not be asked for.
  if (sessionId !== null && !UUID.test(sessionId)) return <NotFound />;
  if (sessionId !== null && params.get("view") === "whole") return <WholeChatPage sessionId={sessionId} />;
  const isPlace = messageId !== null && UUID.test(messageId) && Number.isSafeInteger(order) && order > 0;
  return <OpenConversation sessionId={sessionId} messageId={isPlace ? messageId : null} order={isPlace ? order : 0} />;
}

type OpenConversationProps = { sessionId: string | null; messageId: string | null; order: number };

function OpenConversation({ sessionId, messageId, order }: OpenConversationProps) {
  const place = useMemo(() => (messageId === null ? null : { messageId, order }), [messageId, order]);
  const composer = useRef<ComposerHandle>(null);
  const returnText = useRef<((text: string) => void) | null>(null);
  const { controller, snapshot } = useConversation(sessionId, place, returnText);
  const choices = useChoices(controller.key, lastAgentOf(snapshot.items));
  const { choice } = choices;
  const newest = useRef({ choice, items: snapshot.items });
  useEffect(() => {
    newest.current = { choice, items: snapshot.items };
    returnText.current = (text) => composer.current?.add(text);
  });

  // They stay the same from render to render, so that a message is drawn again only when it has changed.
  const [sends, setSends] = useState(0);
  const actions = useMemo<MessageActions>(() => {
    const counted = (hasBegun: boolean) => {
      if (hasBegun) setSends((before) => before + 1);
      return hasBegun;
    };
    return {
      regenerate: (id) => void counted(controller.regenerate(id, newest.current.choice)),
      continueAnswer: () => void counted(controller.send(sentences.message.continueRequest, newest.current.choice)),
      edit: (id, content) => counted(controller.edit(id, content, newest.current.choice)),
      selectVersion: (id) => void controller.selectBranch(id),
      retry: controller.retry,
      takeBack: controller.takeBack,
      jumpToLatest: async () => {
        await controller.jumpToLatest();
        forgetPlace(controller.sessionId);
      },
    };
  }, [controller]);
  const send = useCallback(
    (text: string) => {
      const isSent = controller.send(text, newest.current.choice);
      if (!isSent) return false;
      setSends((before) => before + 1);
      // From now on the address means the conversation's end, not the message that a search had found.
      forgetPlace(controller.sessionId);
      return true;
    },
    [controller],
  );
  const isBusy = snapshot.turn !== "idle";

  useShortcut("composer", () => composer.current?.focus());
  useShortcut(
    "stop",
    (event) => {
      event.preventDefault();
      void controller.stop();
    },
    isBusy,
  );
  useShortcut("copyAnswer", () => void copyLastAnswer(newest.current.items));

  const isMissing = snapshot.loadError instanceof ApiError && snapshot.loadError.code === 404;
  if (snapshot.phase === "failed" && isMissing) return <NotFound />;
  return (
    <section className="flex h-full min-h-0 flex-col" aria-busy={snapshot.phase === "loading"}>
      <ConversationHeader sessionId={snapshot.sessionId} />
      {snapshot.phase === "loading" ? <ConversationSkeleton /> : null}
      {snapshot.phase === "failed" ? (
        <div className="mx-auto w-full max-w-192 flex-1 p-4 md:px-6">
          <ErrorNotice
            title={sentences.page.loadFailed}
            error={snapshot.loadError}
            onRetry={() => void controller.load()}
          />
        </div>
      ) : null}
      {snapshot.phase === "new" ? <NewChat onSuggest={(text) => composer.current?.set(text)} /> : null}
      {snapshot.phase === "ready" ? (
        <MessageList
          key={`${controller.key}/${snapshot.epoch}`}
          controller={controller}
          snapshot={snapshot}
          actions={actions}
          sends={sends}
        />
      ) : null}
      <TurnStatus snapshot={snapshot} live={controller.live} onRetry={() => void controller.load()} />
      <Composer
        key={`composer-${controller.key}`}
        ref={composer}
        sessionId={snapshot.sessionId}
        turn={snapshot.turn}
        isDisabled={snapshot.phase === "loading" || snapshot.phase === "failed"}
        choices={choices}
        onSend={send}
        onStop={controller.stop}
      />
    </section>
  );
}

/** Who has answered last in a chat; empty when nobody has. */
function lastAgentOf(items: readonly ConversationItem[]): string {
  const last = items.findLast((item) => item.kind === "answer");
  return last?.kind === "answer" ? last.notes.agent : "";
}

/** Takes the message that a search had found out of the address, so that a reload shows the end as well. */
function forgetPlace(sessionId: string | null): void {
  const isPlace = new URLSearchParams(window.location.search).has("message");
  if (isPlace && sessionId !== null) window.history.replaceState(null, "", paths.chat(sessionId));
}

function NotFound() {
  const router = useRouter();
  return (
    <EmptyState
      className="h-full justify-center"
      title={<h1>{sentences.page.notFound}</h1>}
      action={<Button onClick={() => router.push(paths.newChat)}>{sentences.page.beginNew}</Button>}
    >
      {sentences.page.notFoundHint}
    </EmptyState>
  );
}
