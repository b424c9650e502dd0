import type { AnswerUnderWay } from "@/lib/api/types";
import type { ConversationApi } from "../conversation-api";
import { FrameBatcher } from "./frame-batcher";
import { type ConnectionState, followRun } from "./run-reader";
import { type AnswerPart, giveUpMissing, reduceTurnEvents, resume, START_OF_TURN, type TurnState } from "./run-reducer";

// From here on drawing the answer anew takes a good part of a frame.
const LONG_ANSWER_CHARS = 16_000;

/** What is drawn of the answer in the making; null while there is none. */
export type LiveSnapshot = Pick<TurnState, "phase" | "parts" | "message" | "isIncomplete" | "model"> | null;

/**
 * The answer in the making, for the one component that draws it. Apart from the rest of the conversation, so that a
 * new word draws nothing else, and at most once per frame.
 */
export class LiveStore {
  private shown: LiveSnapshot = null;
  private next: LiveSnapshot = null;
  private readonly listeners = new Set<() => void>();
  private readonly batcher = new FrameBatcher(
    () => this.flush(),
    () => lengthOf(this.next) > LONG_ANSWER_CHARS,
  );

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly getSnapshot = (): LiveSnapshot => this.shown;

  /** Shows a state with the next frame. */
  set(state: LiveSnapshot): void {
    this.next = state;
    this.batcher.request();
  }

  /** Shows at once what is there. */
  flush(): void {
    this.batcher.cancel();
    if (this.shown === this.next) return;
    this.shown = this.next;
    for (const listener of this.listeners) listener();
  }

  /** Forgets the answer. */
  clear(): void {
    this.next = null;
    this.flush();
  }
}

function lengthOf(snapshot: LiveSnapshot): number {
  let length = 0;
  for (const part of snapshot?.parts ?? []) if (part.kind === "text") length += part.text.length;
  return length;
}

function partsOf({ text, reasoning, reasoning_milliseconds: spent }: AnswerUnderWay): AnswerPart[] {
  const parts: AnswerPart[] = [];
  if (reasoning !== "") {
    const milliseconds = text === "" ? null : spent;
    parts.push({ kind: "thought", text: reasoning, since: Date.now() - spent, milliseconds });
  }
  if (text !== "") parts.push({ kind: "text", text });
  return parts;
}

export type LiveTurnOptions = {
  api: ConversationApi;
  runId: string;
  store: LiveStore;
  /** What the answer had said when the page was loaded; shown until the events, which know its tools too, have come so far. */
  underWay?: AnswerUnderWay | null;
  /** Called for each batch of events, with the state before and after it. */
  onProgress: (state: TurnState, before: TurnState) => void;
  onConnection: (state: ConnectionState) => void;
};

/** One run that is being followed. */
export class LiveTurn {
  state: TurnState;
  private readonly ending = new AbortController();
  // Where an event was missing the last time; missing again at the same place, it is gone.
  private missingAfter: number | null = null;
  private readonly shownUntil: number;

  constructor(private readonly options: LiveTurnOptions) {
    const { underWay, store } = options;
    this.state = { ...START_OF_TURN, thoughtBefore: underWay?.reasoning_milliseconds ?? 0 };
    const parts = underWay ? partsOf(underWay) : [];
    this.shownUntil = parts.length === 0 ? 0 : Number(underWay?.last_seq);
    if (parts.length === 0) return;
    store.set({ ...START_OF_TURN, phase: "answering", model: underWay?.model ?? "", parts });
    store.flush();
  }

  get runId(): string {
    return this.options.runId;
  }

  /** Follows the run to its end. Returns false when `stop` was called before; throws the ApiError of a refusal. */
  async follow(): Promise<boolean> {
    const { api, runId, onConnection } = this.options;
    const end = await followRun({
      open: (afterSeq, signal) => api.openEvents(runId, afterSeq, signal),
      afterSeq: () => this.state.lastSeq,
      onEvents: (events) => {
        const before = this.state;
        let state = reduceTurnEvents(before, events);
        let isMissing = state.needsReload;
        if (isMissing && this.missingAfter === state.lastSeq) {
          state = reduceTurnEvents(giveUpMissing(state), events);
          isMissing = false;
        } else if (isMissing) {
          this.missingAfter = state.lastSeq;
          state = resume(state);
        }
        this.state = state;
        if (state !== before) {
          if (state.lastSeq >= this.shownUntil) this.options.store.set(state);
          this.options.onProgress(state, before);
        }
        return isMissing ? "reconnect" : "continue";
      },
      onConnection,
      signal: this.ending.signal,
    });
    return end === "ended";
  }

  /** Stops following. The run goes on. */
  stop(): void {
    this.ending.abort();
  }
}
