import type { ConversationItem } from "./items";

/** Which model and agent answer; absent means the configured ones. */
export type Choice = { model?: string; agent?: string };

/** A message to scroll to; another `visit` asks for the same one again. */
export type ScrollTarget = { messageId: string; visit: number };

/** Where the turn stands. */
export type TurnPhase = "idle" | "starting" | "running" | "stopping";

export type LoadState = "idle" | "loading" | "failed";

/** What is drawn of a conversation, apart from the answer in the making. */
export type ConversationSnapshot = {
  /** Null until the first message of a new chat has made its session. */
  sessionId: string | null;
  phase: "new" | "loading" | "ready" | "failed";
  /** Why the conversation could not be loaded. */
  loadError: unknown;
  items: readonly ConversationItem[];
  hasEarlier: boolean;
  hasLater: boolean;
  earlier: LoadState;
  later: LoadState;
  turn: TurnPhase;
  isReconnecting: boolean;
  /** Why the answer in the making can be followed no longer. */
  followError: unknown;
  target: ScrollTarget | null;
  /** Another number means that other messages have taken the place of all that were loaded. */
  epoch: number;
};

export const NEW_CHAT: ConversationSnapshot = {
  sessionId: null,
  phase: "new",
  loadError: null,
  items: [],
  hasEarlier: false,
  hasLater: false,
  earlier: "idle",
  later: "idle",
  turn: "idle",
  isReconnecting: false,
  followError: null,
  target: null,
  epoch: 0,
};

/** What a person asked for, until the server has it. */
export type Submission = {
  requestId: string;
  sessionRequestId: string;
  kind: "send" | "edit" | "regenerate";
  content: string;
  /** The user's message that is edited or answered anew. */
  userMessageId: string | null;
  /** The leaf before it, for when it is taken back. */
  leafBefore: string | null;
  choice: Choice;
  status: "sending" | "failed";
  error: unknown;
};
