"use client";

import { ArrowUp, Square } from "lucide-react";
import {
  type KeyboardEvent,
  memo,
  type Ref,
  type RefObject,
  useEffect,
  useImperativeHandle,
  useLayoutEffect,
  useRef,
  useState,
} from "react";
import { Button } from "@/components/ui/button";
import type { TurnPhase } from "../controller/conversation-state";
import { readDraft } from "../drafts";
import { sizeProblem } from "../message-limit";
import { sentences } from "../sentences";
import { ChoiceMenu } from "./choice-menu";
import type { Choices } from "./use-choices";
import { useDraft } from "./use-draft";

export type ComposerHandle = {
  focus: () => void;
  /** Puts a text in place of what stands there. */
  set: (text: string) => void;
  /** Puts a text before what stands there. */
  add: (text: string) => void;
};

type ComposerProps = {
  ref: Ref<ComposerHandle>;
  sessionId: string | null;
  turn: TurnPhase;
  isDisabled: boolean;
  choices: Choices;
  /** Returns false when the text could not be taken. */
  onSend: (text: string) => boolean;
  onStop: () => void;
};

/** The message box. It holds its text itself, so that typing draws nothing but the box. */
export const Composer = memo(function Composer(props: ComposerProps) {
  const { ref, sessionId, turn, isDisabled, choices, onSend, onStop } = props;
  const [text, setText] = useState(() => readDraft(sessionId));
  const field = useRef<HTMLTextAreaElement>(null);
  const draft = useDraft(sessionId);

  useImperativeHandle(ref, () => {
    const put = (change: (before: string) => string) => {
      setText((before) => {
        const next = change(before);
        draft.type(next);
        return next;
      });
      // Behind the drawing of the new text.
      setTimeout(() => {
        const element = field.current;
        element?.focus();
        element?.setSelectionRange(element.value.length, element.value.length);
      });
    };
    return {
      focus: () => field.current?.focus(),
      set: (next) => put(() => next),
      add: (next) => put((before) => (before.trim() === "" ? next : `${next}\n\n${before}`)),
    };
  }, [draft]);

  useEffect(() => {
    // On a phone the keyboard would cover the conversation that somebody has just opened.
    if (!isDisabled && matchMedia("(pointer: fine)").matches && canTakeFocus()) field.current?.focus();
  }, [isDisabled]);

  const isIdle = turn === "idle";
  // biome-ignore lint/correctness/useExhaustiveDependencies: the turn is the reason, though it is not read.
  useEffect(() => {
    // The button that was pressed (Send, Stop, Regenerate …) may be gone; the focus must not be lost with it.
    if (matchMedia("(pointer: fine)").matches && canTakeFocus()) field.current?.focus({ preventScroll: true });
  }, [isIdle]);
  useAutoGrow(field, text);

  const problem = sizeProblem(text);
  const isReady = !isDisabled && problem === null && text.trim() !== "";
  const canSend = isIdle && isReady;
  const [isQueued, setIsQueued] = useState(false);

  function send() {
    if (!canSend) {
      // One answer at a time: what is sent during one waits for its end.
      if (isReady) setIsQueued(true);
      return;
    }
    // Until the server has it, what is sent stays a draft.
    draft.keep(text);
    if (onSend(text)) setText("");
  }
  const sendNow = useRef(send);
  useEffect(() => {
    sendNow.current = send;
  });
  useEffect(() => {
    if (!isQueued || !isIdle) return;
    setIsQueued(false);
    sendNow.current();
  }, [isQueued, isIdle]);

  function onKeyDown(event: KeyboardEvent) {
    // Enter also ends the choice of a word in scripts that are typed in steps; some browsers say so only by the code 229.
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing || event.keyCode === 229) return;
    // On a phone Enter is the only way to begin a line.
    if (!(event.ctrlKey || event.metaKey) && matchMedia("(pointer: coarse)").matches) return;
    event.preventDefault();
    send();
  }

  return (
    <form
      className="mx-auto w-full max-w-192 shrink-0 px-3 pb-3 md:px-6 md:pb-4"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <div className="rounded-2xl bg-raised text-ink shadow-2 focus-within:outline-1 focus-within:outline-edge forced-colors:border">
        <textarea
          ref={field}
          dir="auto"
          aria-label={sentences.composer.label}
          aria-describedby={problem === null ? undefined : "message-problem"}
          aria-invalid={problem === null ? undefined : true}
          placeholder={sentences.composer.placeholder}
          rows={1}
          value={text}
          autoComplete="off"
          enterKeyHint="enter"
          onChange={(event) => {
            setText(event.target.value);
            draft.type(event.target.value);
          }}
          onKeyDown={onKeyDown}
          className="field-sizing-content block max-h-[40dvh] min-h-12 w-full resize-none bg-transparent px-4 py-3 text-base leading-6.5 outline-none placeholder:text-ink-3"
        />
        <div className="flex items-center gap-1 px-2 pb-2">
          <ChoiceMenu
            label={sentences.composer.model}
            options={choices.models}
            value={choices.model}
            onChange={choices.chooseModel}
          />
          <ChoiceMenu
            label={sentences.composer.agent}
            options={choices.agents}
            value={choices.agent}
            onChange={choices.chooseAgent}
          />
          <span className="ms-auto" />
          {isIdle ? (
            <Button
              type="submit"
              size="icon"
              aria-label={sentences.composer.send}
              title={sentences.composer.sendHint}
              className="size-8 rounded-[0.625rem] disabled:bg-well-2 disabled:text-ink-3 disabled:opacity-100 pointer-coarse:size-11"
              disabled={!canSend}
            >
              <ArrowUp aria-hidden strokeWidth={2.25} />
            </Button>
          ) : (
            <Button
              key="stop"
              size="icon"
              variant="secondary"
              aria-label={sentences.composer.stop}
              title={sentences.composer.stopHint}
              className="size-8 rounded-[0.625rem] bg-pine-soft-2 hover:bg-pine-soft pointer-coarse:size-11"
              loading={turn === "stopping"}
              onClick={onStop}
            >
              {turn === "stopping" ? null : <Square className="fill-current" aria-hidden />}
            </Button>
          )}
        </div>
      </div>
      <div role="status">
        {isQueued ? (
          <p className="flex flex-wrap items-center gap-x-2 px-2 pt-1 text-sm text-ink-2">
            {sentences.composer.queued}
            <Button variant="link" size="sm" className="px-0" onClick={() => setIsQueued(false)}>
              {sentences.composer.unqueue}
            </Button>
          </p>
        ) : null}
      </div>
      {problem === null ? null : (
        <p id="message-problem" role="alert" className="px-2 pt-2 text-sm text-danger-text">
          {problem}
        </p>
      )}
    </form>
  );
});

/** Makes the box as high as its text in browsers that do not know `field-sizing`. */
function useAutoGrow(field: RefObject<HTMLTextAreaElement | null>, text: string): void {
  // biome-ignore lint/correctness/useExhaustiveDependencies: the text is what gives the box its height.
  useLayoutEffect(() => {
    const element = field.current;
    if (element === null || typeof CSS === "undefined" || CSS.supports?.("field-sizing", "content")) return;
    element.style.height = "auto";
    element.style.height = `${element.scrollHeight}px`;
  }, [field, text]);
}

/** Whether nothing else has the focus that a person may want to keep. */
function canTakeFocus(): boolean {
  const focused = document.activeElement;
  return focused === null || focused === document.body || focused.tagName === "MAIN";
}
