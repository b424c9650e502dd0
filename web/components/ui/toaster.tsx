"use client";

import { Check, CircleAlert, X } from "lucide-react";
import { useEffect, useRef, useState, useSyncExternalStore } from "react";
import { cn } from "@/lib/utils";
import { Button } from "./button";
import { errorRequestId, errorSentence } from "./error-notice";
import { sentences } from "./sentences";

export type ToastOptions = {
  description?: string;
  /** A button, which also ends the toast. */
  action?: { label: string; onClick: () => void };
  /** How long it stays, in milliseconds; it waits while somebody points at a toast or has tabbed to one. */
  duration?: number;
  /** Called when its time is over or the person has put it away; not after its action, nor after `toast.dismiss`. */
  onGone?: () => void;
};

type Kind = "message" | "success" | "error";
type Toast = ToastOptions & { id: number; kind: Kind; text: string };

const DURATION_MS: Record<Kind, number> = { message: 5000, success: 4000, error: 9000 };
/** What is left at least when somebody looks away from the toasts. */
const AFTERWARDS_MS = 1500;

const nothing: readonly Toast[] = [];
let toasts = nothing;
let count = 0;
const listeners = new Set<() => void>();

function publish(next: readonly Toast[]): void {
  toasts = next;
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function say(kind: Kind, text: string, options: ToastOptions = {}): number {
  count += 1;
  publish([{ ...options, id: count, kind, text }, ...toasts]);
  return count;
}

/** Takes a toast away, or all of them. */
function dismiss(id?: number): void {
  publish(id === undefined ? nothing : toasts.filter((entry) => entry.id !== id));
}

/** Says something in passing; returns the id by which it can be dismissed. */
export const toast = Object.assign((text: string, options?: ToastOptions) => say("message", text, options), {
  success: (text: string, options?: ToastOptions) => say("success", text, options),
  error: (text: string, options?: ToastOptions) => say("error", text, options),
  dismiss,
});

/** Says in a toast what went wrong, with the request id. */
export function toastError(error: unknown, title?: string): void {
  const requestId = errorRequestId(error);
  const reason = requestId ? sentences.withRequestId(errorSentence(error), requestId) : errorSentence(error);
  if (title) toast.error(title, { description: reason });
  else toast.error(reason);
}

/** Where toasts appear, the newest first. Mounted once, beside everything. */
export function Toaster() {
  const shown = useSyncExternalStore(
    subscribe,
    () => toasts,
    () => nothing,
  );
  const region = useRef<HTMLElement>(null);
  const [isPointedAt, setIsPointedAt] = useState(false);
  const [hasFocus, setHasFocus] = useState(false);

  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      if (!event.altKey || event.ctrlKey || event.metaKey || event.code !== "KeyT") return;
      const button = region.current?.querySelector("button");
      if (!button) return;
      event.preventDefault();
      button.focus();
    };
    window.addEventListener("keydown", onKeyDown);
    return () => window.removeEventListener("keydown", onKeyDown);
  }, []);

  // The last toast takes the pointer and the focus with it, without a word.
  if (shown.length === 0 && (isPointedAt || hasFocus)) {
    setIsPointedAt(false);
    setHasFocus(false);
  }

  return (
    <section
      ref={region}
      aria-label={sentences.notices}
      aria-live="polite"
      aria-relevant="additions text"
      onPointerEnter={(event) => setIsPointedAt(event.pointerType === "mouse")}
      onPointerLeave={() => setIsPointedAt(false)}
      onFocus={() => setHasFocus(true)}
      onBlur={(event) => setHasFocus(event.currentTarget.contains(event.relatedTarget))}
      // At the top: at the bottom people write.
      className="pointer-events-none fixed top-14 end-3 z-60 grid max-h-[calc(100dvh-4rem)] w-[min(22rem,calc(100vw-1.5rem))] grid-cols-1 gap-2 overflow-y-auto md:top-3"
    >
      {shown.map((entry) => (
        <ToastCard key={entry.id} entry={entry} isPaused={isPointedAt || hasFocus} />
      ))}
    </section>
  );
}

function ToastCard({ entry, isPaused }: { entry: Toast; isPaused: boolean }) {
  const { id, kind, text, description, action, onGone } = entry;
  const left = useRef(entry.duration ?? DURATION_MS[kind]);
  const end = useRef(() => {});
  useEffect(() => {
    end.current = () => {
      dismiss(id);
      onGone?.();
    };
  });

  useEffect(() => {
    if (isPaused) return;
    const start = Date.now();
    const timer = setTimeout(() => end.current(), left.current);
    return () => {
      clearTimeout(timer);
      left.current = Math.max(left.current - (Date.now() - start), AFTERWARDS_MS);
    };
  }, [isPaused]);

  return (
    <div
      // Also in front of a dialog, which takes the pointer from everything else (see keepForToasts).
      data-toast
      className="pointer-events-auto flex animate-in items-start gap-2 rounded-xl bg-raised forced-colors:border p-3 text-sm text-ink shadow-3 fade-in-0 slide-in-from-top-2"
    >
      {kind === "success" ? <Check className="mt-0.5 size-4 shrink-0 text-good-text" aria-hidden /> : null}
      {kind === "error" ? <CircleAlert className="mt-0.5 size-4 shrink-0 text-danger-text" aria-hidden /> : null}
      <div className="min-w-0 flex-1 self-center">
        <p className={cn("wrap-anywhere", description && "font-medium")}>{text}</p>
        {description ? <p className="mt-0.5 wrap-anywhere text-ink-2">{description}</p> : null}
      </div>
      {action ? (
        <Button
          variant="ghost"
          size="sm"
          className="h-7 text-pine-text"
          onClick={() => {
            dismiss(id);
            action.onClick();
          }}
        >
          {action.label}
        </Button>
      ) : null}
      <Button
        variant="ghost"
        size="icon"
        aria-label={sentences.dismiss}
        className="size-7 text-ink-2"
        onClick={() => end.current()}
      >
        <X aria-hidden />
      </Button>
    </div>
  );
}
