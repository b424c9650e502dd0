"use client";

import { Pencil, RotateCw, TriangleAlert } from "lucide-react";
import { type KeyboardEvent, memo, useEffect, useRef, useState } from "react";
import { Button } from "@/components/ui/button";
import { errorRequestId, errorSentence } from "@/components/ui/error-notice";
import { RequestId } from "@/components/ui/request-id";
import type { PendingItem, UserItem } from "../controller/items";
import { IconButton } from "../icon-button";
import { sizeProblem } from "../message-limit";
import { sentences } from "../sentences";
import { CopyButton } from "./copy-button";
import type { MessageActions } from "./message-actions";
import { VersionSwitcher } from "./version-switcher";

// A pasted book must not make the page slow; the rest is one click away.
const SHOWN_CHARS = 6000;

type UserMessageProps = {
  item: UserItem | PendingItem;
  isBusy: boolean;
  isTarget: boolean;
  isEditing: boolean;
  onEdit: (messageId: string | null) => void;
  actions: MessageActions;
};

/** What the person said: stored, or on its way. */
export const UserMessage = memo(function UserMessage({
  item,
  isBusy,
  isTarget,
  isEditing,
  onEdit,
  actions,
}: UserMessageProps) {
  const isStored = item.kind === "user";
  const content = isStored ? item.message.content : item.content;
  if (isStored && isEditing) {
    return (
      <article aria-label={sentences.message.you} data-message-id={item.message.id}>
        <EditForm
          content={content}
          isBusy={isBusy}
          onSave={(text) => {
            if (actions.edit(item.message.id, text)) onEdit(null);
          }}
          onCancel={() => onEdit(null)}
        />
      </article>
    );
  }
  return (
    <article
      aria-label={sentences.message.you}
      data-message-id={isStored ? item.message.id : undefined}
      className="flex flex-col items-end"
    >
      <div
        dir="auto"
        data-target={isTarget || undefined}
        className="max-w-[85%] rounded-2xl rounded-ee-sm bg-well px-4 py-2.5 leading-6.5 wrap-anywhere whitespace-pre-wrap text-ink data-target:outline-2 data-target:outline-offset-4 data-target:outline-pine"
      >
        <LongText text={content} />
      </div>
      {isStored ? (
        <div className="-me-2 flex min-h-8 items-center">
          {item.alternatives === null ? null : (
            <VersionSwitcher alternatives={item.alternatives} isDisabled={isBusy} onSelect={actions.selectVersion} />
          )}
          <CopyButton text={() => content} />
          <IconButton label={sentences.edit} disabled={isBusy} onClick={() => onEdit(item.message.id)}>
            <Pencil aria-hidden />
          </IconButton>
        </div>
      ) : (
        <PendingFoot item={item} actions={actions} />
      )}
    </article>
  );
});

function LongText({ text }: { text: string }) {
  const [isWhole, setIsWhole] = useState(false);
  if (isWhole || text.length <= SHOWN_CHARS) return text;
  return (
    <>
      {`${text.slice(0, SHOWN_CHARS)}… `}
      <Button variant="link" className="h-auto p-0" onClick={() => setIsWhole(true)}>
        {sentences.message.showAll}
      </Button>
    </>
  );
}

function PendingFoot({ item, actions }: { item: PendingItem; actions: MessageActions }) {
  if (item.status === "sending") return <div className="min-h-8" />;
  const requestId = errorRequestId(item.error);
  return (
    <div role="alert" className="mt-2 grid max-w-[85%] justify-items-end gap-2 text-sm">
      <p className="flex gap-2">
        <TriangleAlert className="mt-0.5 size-4 shrink-0 text-danger-text" aria-hidden />
        <span>{sentences.message.notSent(errorSentence(item.error))}</span>
      </p>
      {requestId === null ? null : <RequestId id={requestId} />}
      <div className="flex gap-2">
        <Button variant="ghost" size="sm" onClick={actions.takeBack}>
          <Pencil aria-hidden />
          {sentences.edit}
        </Button>
        <Button variant="outline" size="sm" onClick={actions.retry}>
          <RotateCw aria-hidden />
          {sentences.retry}
        </Button>
      </div>
    </div>
  );
}

type EditFormProps = { content: string; isBusy: boolean; onSave: (text: string) => void; onCancel: () => void };

function EditForm({ content, isBusy, onSave, onCancel }: EditFormProps) {
  const [text, setText] = useState(content);
  const field = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    const element = field.current;
    element?.focus({ preventScroll: true });
    element?.setSelectionRange(element.value.length, element.value.length);
  }, []);
  const problem = sizeProblem(text);
  const canSave = !isBusy && problem === null && text.trim() !== "";
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.nativeEvent.isComposing) return;
    if (event.key === "Escape") {
      event.preventDefault();
      onCancel();
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && canSave) {
      event.preventDefault();
      onSave(text);
    }
  };
  return (
    <form
      className="grid gap-2"
      onSubmit={(event) => {
        event.preventDefault();
        if (canSave) onSave(text);
      }}
    >
      <textarea
        ref={field}
        dir="auto"
        aria-label={sentences.message.editLabel}
        value={text}
        rows={3}
        onChange={(event) => setText(event.target.value)}
        onKeyDown={onKeyDown}
        className="field-sizing-content max-h-96 w-full resize-y rounded-xl border border-edge bg-raised px-4 py-2.5 text-base leading-6.5"
      />
      {problem === null ? null : (
        <p role="alert" className="text-sm text-danger-text">
          {problem}
        </p>
      )}
      <div className="flex justify-end gap-2">
        <Button variant="ghost" size="sm" onClick={onCancel}>
          {sentences.message.cancel}
        </Button>
        <Button type="submit" size="sm" disabled={!canSave}>
          {sentences.message.saveAndSend}
        </Button>
      </div>
    </form>
  );
}
