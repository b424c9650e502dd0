"use client";

import { ArrowDown } from "lucide-react";
import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";
import { Virtualizer, type VirtualizerHandle } from "virtua";
import { Button } from "@/components/ui/button";
import type { ConversationController } from "../controller/controller";
import type { ConversationSnapshot } from "../controller/conversation-state";
import type { ConversationItem } from "../controller/items";
import { sentences } from "../sentences";
import { AnswerMessage } from "./answer-message";
import { FailureNotice } from "./failure-notice";
import type { MessageActions } from "./message-actions";
import { useStickToEnd } from "./use-stick-to-end";
import { UserMessage } from "./user-message";

// Height of the row above the first message; the list has to know it.
const TOP_PX = 48;
// So near to an edge of what is loaded, more is asked for.
const NEAR_PX = 1500;

type MessageListProps = {
  controller: ConversationController;
  snapshot: ConversationSnapshot;
  actions: MessageActions;
  /** How often the person has sent something; each time the end is shown. */
  sends: number;
};

/** The messages. Only those near the window are in the page, however many there are. */
export function MessageList({ controller, snapshot, actions, sends }: MessageListProps) {
  const { items, target, turn, hasEarlier, hasLater } = snapshot;
  const scroller = useRef<HTMLDivElement>(null);
  const list = useRef<VirtualizerHandle>(null);
  const [editingId, setEditingId] = useState<string | null>(null);
  const isBusy = turn !== "idle";
  const isPrepended = usePrepended(items);
  const { isAtEnd, stick, release, onScroll, onResize } = useStickToEnd(list, scroller, items.length, target === null);

  const loadNear = useCallback(() => {
    const { current } = list;
    const now = controller.getSnapshot();
    if (current === null || now.phase !== "ready") return;
    const { scrollOffset, scrollSize, viewportSize } = current;
    if (now.hasEarlier && now.earlier === "idle" && scrollOffset < NEAR_PX) void controller.loadEarlier();
    if (now.hasLater && now.later === "idle" && scrollSize - scrollOffset - viewportSize < NEAR_PX) {
      void controller.loadLater();
    }
  }, [controller]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: after each change the edge may still be near.
  useEffect(() => {
    // Behind the first measuring, or the edge of an empty list would always be near.
    const timer = setTimeout(loadNear, 150);
    return () => clearTimeout(timer);
  }, [items, loadNear]);

  const sendsBefore = useRef(sends);
  useEffect(() => {
    if (sends === sendsBefore.current) return;
    sendsBefore.current = sends;
    stick();
  }, [sends, stick]);

  useShowTarget(target, items, list, release);

  const targetId = target?.messageId;
  const editingIndex =
    editingId === null ? -1 : items.findIndex((item) => item.kind === "user" && item.message.id === editingId);
  return (
    <div className="relative flex min-h-0 flex-1 flex-col">
      <div
        ref={scroller}
        role="log"
        aria-label={sentences.list.label}
        aria-live="off"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, and the keyboard must be able to scroll it.
        tabIndex={0}
        className="min-h-0 flex-1 overflow-y-auto overscroll-contain [overflow-anchor:none] focus-visible:outline-offset-[-2px]"
      >
        <TopRow snapshot={snapshot} onRetry={() => void controller.loadEarlier()} />
        <Virtualizer
          ref={list}
          scrollRef={scroller}
          data={items}
          shift={isPrepended}
          startMargin={TOP_PX}
          bufferSize={600}
          keepMounted={editingIndex < 0 ? undefined : [editingIndex]}
          onScroll={(offset) => {
            onScroll(offset);
            loadNear();
          }}
          onResize={onResize}
        >
          {(item, index) => (
            <div key={item.key} className="mx-auto max-w-192 px-4 pb-6 md:px-6">
              <Row
                item={item}
                controller={controller}
                isBusy={isBusy}
                isTarget={targetId !== undefined && holds(item, targetId)}
                isLast={index === items.length - 1}
                isEditing={item.kind === "user" && item.message.id === editingId}
                onEdit={setEditingId}
                actions={actions}
              />
            </div>
          )}
        </Virtualizer>
      </div>
      {isAtEnd && !hasLater ? null : (
        <Button
          variant="outline"
          size="sm"
          className="absolute bottom-3 left-1/2 -translate-x-1/2 rounded-full shadow-2"
          onClick={() => {
            void actions.jumpToLatest().then(stick);
          }}
        >
          <ArrowDown aria-hidden />
          {sentences.list.jumpToLatest}
        </Button>
      )}
      {hasEarlier || items.length > 0 ? null : (
        <p className="absolute inset-x-0 top-1/3 px-4 text-center text-sm text-ink-2">{sentences.list.empty}</p>
      )}
    </div>
  );
}

type RowProps = {
  item: ConversationItem;
  controller: ConversationController;
  isBusy: boolean;
  isTarget: boolean;
  isLast: boolean;
  isEditing: boolean;
  onEdit: (messageId: string | null) => void;
  actions: MessageActions;
};

function Row({ item, controller, isBusy, isTarget, isLast, isEditing, onEdit, actions }: RowProps) {
  switch (item.kind) {
    case "user":
    case "pending":
      return <UserMessage {...{ item, isBusy, isTarget, isEditing, onEdit, actions }} />;
    case "answer":
    case "live":
      return <AnswerMessage {...{ item, isBusy, isTarget, isLast, actions }} live={controller.live} />;
    case "failure":
      return <FailureNotice item={item} actions={actions} />;
    case "note":
      return (
        <p dir="auto" className="text-center text-xs wrap-anywhere text-ink-2">
          {item.text}
        </p>
      );
  }
}

function holds(item: ConversationItem, messageId: string): boolean {
  if (item.kind === "user") return item.message.id === messageId;
  return item.kind === "answer" && item.messages.some((message) => message.id === messageId);
}

function TopRow({ snapshot, onRetry }: { snapshot: ConversationSnapshot; onRetry: () => void }) {
  const { earlier } = snapshot;
  return (
    <div style={{ height: TOP_PX }} className="flex items-center justify-center gap-2 text-xs text-ink-2">
      {earlier === "loading" ? sentences.list.loadingEarlier : null}
      {earlier === "failed" ? (
        <>
          {sentences.list.earlierFailed}
          <Button variant="link" size="sm" onClick={onRetry}>
            {sentences.retry}
          </Button>
        </>
      ) : null}
    </div>
  );
}

/** Whether items have come before the former first one, for then the list keeps its place from its end. */
function usePrepended(items: readonly ConversationItem[]): boolean {
  const before = useRef<{ first: string | undefined; length: number }>({ first: undefined, length: 0 });
  const first = items[0] && idOf(items[0]);
  const { first: firstBefore, length } = before.current;
  const isPrepended =
    firstBefore !== undefined &&
    firstBefore !== first &&
    items.length > length &&
    items.some((item) => idOf(item) === firstBefore);
  useLayoutEffect(() => {
    before.current = { first, length: items.length };
  });
  return isPrepended;
}

/** What an item keeps when messages come before it, also when they become a part of it. */
function idOf(item: ConversationItem): string {
  return item.kind === "user" || item.kind === "answer" ? item.message.id : item.key;
}

/** Scrolls to the message that was asked for, once per visit. */
function useShowTarget(
  target: ConversationSnapshot["target"],
  items: readonly ConversationItem[],
  list: { current: VirtualizerHandle | null },
  release: () => void,
): void {
  const shown = useRef(0);
  useEffect(() => {
    if (target === null || target.visit === shown.current) return;
    const index = items.findIndex((item) => holds(item, target.messageId));
    if (index < 0) return;
    shown.current = target.visit;
    release();
    // Twice: the first time the messages around it are measured on the way.
    const show = () => list.current?.scrollToIndex(index, { align: "center" });
    show();
    const timer = setTimeout(show, 120);
    return () => clearTimeout(timer);
  }, [target, items, list, release]);
}
