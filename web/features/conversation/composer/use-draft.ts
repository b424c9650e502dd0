"use client";

import { useEffect, useMemo } from "react";
import { leaveReason, readSession } from "@/lib/auth/store";
import { readDraft, writeDraft } from "../drafts";

const SAVE_MS = 300;

/** Keeps what is typed as a session's draft: soon after each change, and at the latest when the page is left. */
class DraftKeeper {
  private unsaved: string | null = null;
  private typed = "";
  private timer: ReturnType<typeof setTimeout> | undefined;

  private readonly writer = signedInUserId();

  constructor(private sessionId: string | null) {}

  /** Takes what the person has typed. */
  type(text: string): void {
    this.typed = text;
    this.unsaved = text;
    clearTimeout(this.timer);
    this.timer = setTimeout(this.flush, SAVE_MS);
  }

  /** Keeps a text that is being sent; whoever knows that the server has it removes it. */
  keep(text: string): void {
    this.unsaved = text;
    this.flush();
    this.typed = "";
  }

  /** A new chat has become a session: what was typed since goes along. */
  moveTo(sessionId: string | null): void {
    if (sessionId === this.sessionId) return;
    const before = this.sessionId;
    this.flush();
    this.sessionId = sessionId;
    if (this.typed === "") return;
    writeDraft(sessionId, this.typed);
    if (readDraft(before) === this.typed) writeDraft(before, "");
  }

  readonly flush = (): void => {
    clearTimeout(this.timer);
    if (this.unsaved !== null && this.isWritersBrowser()) writeDraft(this.sessionId, this.unsaved);
    this.unsaved = null;
  };

  // Whoever logs out, or gives way to somebody else, leaves no words behind; a sign-in that has ended will go on.
  private isWritersBrowser(): boolean {
    const person = signedInUserId();
    return person === this.writer || (person === null && leaveReason() === "ended");
  }
}

function signedInUserId(): string | null {
  return readSession()?.userId ?? null;
}

/** The keeper of a message box's draft. */
export function useDraft(sessionId: string | null): Pick<DraftKeeper, "type" | "keep"> {
  // biome-ignore lint/correctness/useExhaustiveDependencies: the keeper stays while the session's id comes.
  const keeper = useMemo(() => new DraftKeeper(sessionId), []);
  useEffect(() => keeper.moveTo(sessionId), [keeper, sessionId]);
  useEffect(() => {
    window.addEventListener("pagehide", keeper.flush);
    return () => {
      window.removeEventListener("pagehide", keeper.flush);
      keeper.flush();
    };
  }, [keeper]);
  return keeper;
}
