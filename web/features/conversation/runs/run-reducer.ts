import type { ErrorBody, Message, RunState, Usage } from "@/lib/api/types";
import type { RunEvent } from "./run-events";

/** A tool that was asked, and what it answered. */
export type ToolCall = {
  id: string;
  name: string;
  arguments: Record<string, unknown> | null;
  /** Null while it works. */
  output: string | null;
  isError: boolean;
};

/** What the model thought before it said something or asked a tool; no part of what it says. */
export type Thought = {
  kind: "thought";
  text: string;
  /** Since when it thinks, in milliseconds of the epoch; of a stored thought nobody asks. */
  since: number;
  /** How long it thought; null while it still does, 0 when nobody knows. */
  milliseconds: number | null;
};

/** What an answer is made of, in the order in which it came. */
export type AnswerPart = { kind: "text"; text: string } | Thought | { kind: "tool"; call: ToolCall };

/** An answer in the making, as far as its events tell. */
export type TurnState = {
  /** The newest event that is part of this state; the place from which a connection goes on. */
  lastSeq: number;
  phase: "waiting" | "answering" | "finished";
  userMessage: Message | null;
  model: string;
  agent: string;
  parts: readonly AnswerPart[];
  /** How long the model had thought already when the page was loaded, in milliseconds; its first thought's time. */
  thoughtBefore: number;
  /** The stored answer. */
  message: Message | null;
  usage: Usage | null;
  error: ErrorBody["error"] | null;
  /** How the run ended; null until then. */
  outcome: RunState | null;
  /** True when an event is missing: what is here is right but not all, and the events after `lastSeq` are needed. */
  needsReload: boolean;
  /** True when the missing events are gone for good: only the stored messages hold the whole answer. */
  isIncomplete: boolean;
};

/** The state before a run's first event. */
export const START_OF_TURN: TurnState = {
  lastSeq: 0,
  phase: "waiting",
  userMessage: null,
  model: "",
  agent: "",
  parts: [],
  thoughtBefore: 0,
  message: null,
  usage: null,
  error: null,
  outcome: null,
  needsReload: false,
  isIncomplete: false,
};

/**
 * Returns the state after an event. An event that was there before changes nothing. One that comes too early, or that
 * cannot be read, sets `needsReload`; from then on nothing is taken in until `resume`, so text is neither lost nor doubled.
 */
export function reduceTurn(state: TurnState, event: RunEvent, now = Date.now()): TurnState {
  if (event.seq <= state.lastSeq || state.needsReload || state.phase === "finished") return state;
  const isInOrder = event.seq === state.lastSeq + 1 && event.type !== "unreadable";
  if (!isInOrder && !state.isIncomplete) return { ...state, needsReload: true };
  return take({ ...state, lastSeq: event.seq }, event, now);
}

/** Returns the state after several events. */
export function reduceTurnEvents(state: TurnState, events: Iterable<RunEvent>): TurnState {
  let next = state;
  for (const event of events) next = reduceTurn(next, event);
  return next;
}

/** Returns the state with which the events after `lastSeq` are asked for again. */
export function resume(state: TurnState): TurnState {
  return state.needsReload ? { ...state, needsReload: false } : state;
}

/** Returns the state that goes on without the missing events, because they are gone. The text stays as it is. */
export function giveUpMissing(state: TurnState): TurnState {
  return { ...state, needsReload: false, isIncomplete: true };
}

function take(state: TurnState, event: RunEvent, now: number): TurnState {
  switch (event.type) {
    case "run.started":
      return {
        ...state,
        phase: "answering",
        userMessage: event.data.user_message,
        model: event.data.model,
        agent: event.data.agent,
      };
    case "message.delta":
      // Without the pieces before it a piece of text would only mislead.
      return state.isIncomplete ? state : { ...state, parts: withText(state.parts, event.data.text, now) };
    case "reasoning.delta":
      return state.isIncomplete ? state : { ...state, parts: withThought(state, event.data.text, now) };
    case "tool.started": {
      const { call_id: id, name, arguments: given } = event.data;
      return {
        ...state,
        parts: withCall(ended(state.parts, now), { id, name, arguments: given, output: null, isError: false }),
      };
    }
    case "tool.finished": {
      const { call_id: id, name, output, is_error: isError } = event.data;
      const before = findCall(state.parts, id);
      return {
        ...state,
        parts: withCall(state.parts, { id, name, arguments: before?.arguments ?? null, output, isError }),
      };
    }
    case "message.completed":
      return { ...state, message: event.data.message };
    case "usage":
      return { ...state, usage: event.data };
    case "error":
      return { ...state, error: event.data.error };
    case "run.finished":
      return { ...state, parts: ended(state.parts, now), phase: "finished", outcome: event.data.state };
    default:
      return state;
  }
}

function withText(parts: readonly AnswerPart[], text: string, now: number): readonly AnswerPart[] {
  const last = parts.at(-1);
  if (last?.kind !== "text") return [...ended(parts, now), { kind: "text", text }];
  return [...parts.slice(0, -1), { kind: "text", text: last.text + text }];
}

function withThought({ parts, thoughtBefore }: TurnState, text: string, now: number): readonly AnswerPart[] {
  const last = parts.at(-1);
  if (last?.kind === "thought") return [...parts.slice(0, -1), { ...last, text: last.text + text }];
  const isFirst = !parts.some((part) => part.kind === "thought");
  return [...parts, { kind: "thought", text, since: isFirst ? now - thoughtBefore : now, milliseconds: null }];
}

/** Returns the parts with the thought at their end, if there is one, as one that is over. */
function ended(parts: readonly AnswerPart[], now: number): readonly AnswerPart[] {
  const last = parts.at(-1);
  if (last?.kind !== "thought" || last.milliseconds !== null) return parts;
  return [...parts.slice(0, -1), { ...last, milliseconds: Math.max(0, now - last.since) }];
}

function findCall(parts: readonly AnswerPart[], id: string): ToolCall | undefined {
  for (const part of parts) if (part.kind === "tool" && part.call.id === id) return part.call;
  return undefined;
}

function withCall(parts: readonly AnswerPart[], call: ToolCall): readonly AnswerPart[] {
  if (findCall(parts, call.id) === undefined) return [...parts, { kind: "tool", call }];
  return parts.map((part) => (part.kind === "tool" && part.call.id === call.id ? { kind: "tool", call } : part));
}
