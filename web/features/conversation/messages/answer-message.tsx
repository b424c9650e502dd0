"use client";

import { ArrowRight, RotateCw } from "lucide-react";
import { memo, type ReactNode, useDeferredValue, useSyncExternalStore } from "react";
import { Button } from "@/components/ui/button";
import { type AnswerItem, type LiveItem, partsOf } from "../controller/items";
import { IconButton } from "../icon-button";
import { Markdown } from "../markdown/markdown";
import { failureSentence } from "../runs/failure-sentence";
import type { LiveSnapshot, LiveStore } from "../runs/live-turn";
import type { AnswerPart } from "../runs/run-reducer";
import { sentences } from "../sentences";
import { CopyButton, textOfParts } from "./copy-button";
import type { MessageActions } from "./message-actions";
import { Thought } from "./thought";
import { ToolCall } from "./tool-call";
import { VersionSwitcher } from "./version-switcher";

type AnswerMessageProps = {
  item: AnswerItem | LiveItem;
  live: LiveStore;
  isBusy: boolean;
  isTarget: boolean;
  /** Whether nothing follows it. */
  isLast: boolean;
  actions: MessageActions;
};

const NOTHING: readonly AnswerPart[] = [];
const noStore = () => () => undefined;
const noSnapshot = (): LiveSnapshot => null;

/** An answer: stored, or in the making. One component for both, so that nothing on the page is replaced at its end. */
export const AnswerMessage = memo(function AnswerMessage(props: AnswerMessageProps) {
  const { item, live, isBusy, isTarget, isLast, actions } = props;
  const isLive = item.kind === "live";
  const shown = useSyncExternalStore(
    isLive ? live.subscribe : noStore,
    isLive ? live.getSnapshot : noSnapshot,
    noSnapshot,
  );
  // Drawing text may take longer than a frame; typing goes first.
  const livePart = useDeferredValue(isLive ? livePartsOf(shown) : NOTHING);
  const parts = isLive ? livePart : item.parts;
  return (
    <article
      aria-label={sentences.message.assistant}
      aria-busy={isLive || undefined}
      data-message-id={isLive ? undefined : item.message.id}
      data-target={isTarget || undefined}
      className="rounded-lg data-target:bg-brass-soft data-target:outline-8 data-target:outline-brass-soft"
    >
      {parts.map((part, place) =>
        part.kind === "text" ? (
          // biome-ignore lint/suspicious/noArrayIndexKey: parts only ever come behind the others.
          <Markdown key={`text-${place}`} text={part.text} streaming={isLive && place === parts.length - 1} />
        ) : part.kind === "thought" ? (
          // biome-ignore lint/suspicious/noArrayIndexKey: the same.
          <Thought key={`thought-${place}`} thought={part} />
        ) : (
          <ToolCall key={`tool-${part.call.id}`} call={part.call} isLive={isLive} />
        ),
      )}
      {isLive ? <Waiting isVisible={isSilent(parts.at(-1))} /> : null}
      {isLive ? null : <StoredFoot item={item} isBusy={isBusy} isLast={isLast} actions={actions} />}
    </article>
  );
});

function livePartsOf(shown: LiveSnapshot): readonly AnswerPart[] {
  if (shown === null) return NOTHING;
  // With events gone for good, only the stored answer is whole.
  if (shown.isIncomplete && shown.message !== null) return partsOf([shown.message]);
  return shown.parts;
}

/** Whether nothing on the page shows that the answer goes on. */
function isSilent(last: AnswerPart | undefined): boolean {
  if (last?.kind === "thought") return last.milliseconds !== null;
  return last?.kind !== "text";
}

function Waiting({ isVisible }: { isVisible: boolean }) {
  return (
    <p className={isVisible ? "flex h-8 items-center gap-1" : "h-8"}>
      {isVisible ? (
        <>
          <span className="sr-only">{sentences.turn.thinking}</span>
          {[0, 150, 300].map((delay) => (
            <span
              key={delay}
              aria-hidden
              className="size-2 animate-pulse rounded-full bg-pine"
              style={{ animationDelay: `${delay}ms` }}
            />
          ))}
        </>
      ) : null}
    </p>
  );
}

type StoredFootProps = { item: AnswerItem; isBusy: boolean; isLast: boolean; actions: MessageActions };

function StoredFoot({ item, isBusy, isLast, actions }: StoredFootProps) {
  const { answers, alternatives, notes, parts } = item;
  return (
    <>
      {notes.isPartial ? (
        <EndNote says={`${failureSentence(notes.errorReason)} ${parts.length > 0 ? sentences.message.kept : ""}`}>
          {answers === null || !isLast ? null : (
            <Button variant="outline" size="sm" disabled={isBusy} onClick={() => actions.regenerate(answers)}>
              <RotateCw aria-hidden />
              {sentences.retry}
            </Button>
          )}
        </EndNote>
      ) : notes.isCutOff ? (
        <EndNote says={sentences.message.cutOff}>
          {isLast ? (
            <Button variant="outline" size="sm" disabled={isBusy} onClick={actions.continueAnswer}>
              <ArrowRight aria-hidden />
              {sentences.message.continue}
            </Button>
          ) : null}
        </EndNote>
      ) : null}
      <div className="-ms-2 flex min-h-8 flex-wrap items-center">
        <CopyButton text={() => textOfParts(parts)} />
        {answers === null ? null : (
          <IconButton
            label={sentences.message.regenerate}
            disabled={isBusy}
            onClick={() => actions.regenerate(answers)}
          >
            <RotateCw aria-hidden />
          </IconButton>
        )}
        {alternatives === null ? null : (
          <VersionSwitcher alternatives={alternatives} isDisabled={isBusy} onSelect={actions.selectVersion} />
        )}
        <UsageNote notes={notes} />
      </div>
    </>
  );
}

/** Says why an answer ends where it does, with what can be done about it. */
function EndNote({ says, children }: { says: string; children: ReactNode }) {
  return (
    <div className="mt-2 flex flex-wrap items-center gap-x-3 gap-y-2 rounded-xl bg-well px-3 py-2 text-sm">
      <p className="min-w-0 flex-1 basis-52">{says.trim()}</p>
      {children}
    </div>
  );
}

function UsageNote({ notes }: { notes: AnswerItem["notes"] }) {
  const { completionTokens: count, promptTokens, isEstimated, model, agent } = notes;
  if (count === 0) return null;
  const details = [
    sentences.usage.details(promptTokens, count),
    isEstimated ? sentences.usage.estimated : "",
    model,
    agent,
  ];
  return (
    <span className="ms-2 text-[0.8125rem] text-ink-3" title={details.filter(Boolean).join(" · ")}>
      {/* Apart from the text before it, also where the page is read without its layout. */}{" "}
      {sentences.usage.tokens(count, isEstimated)}
    </span>
  );
}
