import type { AnswerUnderWay, Session } from "@/lib/api/types";
import type { Announcement } from "@/lib/broadcast";
import type { ConversationApi } from "../conversation-api";
import type { MessageWindow } from "./message-window";

/** What a conversation is given by the page that shows it. */
export type Dependencies = {
  api: ConversationApi;
  /** Tells the other tabs. */
  announce: (announcement: Announcement) => void;
  /** A new chat has become a session. */
  onCreated: (session: Session) => void;
  /** The server has a message, so that its draft is not needed any more. */
  onAccepted: (sessionId: string, content: string) => void;
  /** Text that was not sent comes back to the person. */
  onReturned: (content: string) => void;
  /** An answer's first words are there; the session gets its name about now. */
  onBegun: (sessionId: string) => void;
  /** An answer has ended. */
  onAnswered: (sessionId: string) => void;
  /** Something that was asked for did not work. */
  onError: (error: unknown, title: string) => void;
};

/** The part of a conversation that its turns change. */
export type TurnHost = {
  readonly dependencies: Dependencies;
  /** Keys of answers that were on the page before their question was stored, by the question. */
  readonly aliases: Map<string, string>;
  /** The key on the page of what follows a message. */
  keyAfter(messageId: string): string;
  sessionId: string | null;
  window: MessageWindow;
  /** Fires when the page is left. */
  signal(): AbortSignal;
  isAttached(): boolean;
  /** Makes a new snapshot. */
  publish(): void;
  /** Shows the newest messages; returns the answer that no message holds yet. */
  readNewest(signal: AbortSignal): Promise<AnswerUnderWay | null>;
};
