import type {
  MessageCompleted,
  MessageDelta,
  ReasoningDelta,
  RunError,
  RunFinished,
  RunStarted,
  ToolFinished,
  ToolStarted,
  Usage,
} from "@/lib/api/types";
import type { SseEvent } from "./sse";

type Payloads = {
  "run.started": RunStarted;
  "message.delta": MessageDelta;
  "reasoning.delta": ReasoningDelta;
  "message.completed": MessageCompleted;
  "tool.started": ToolStarted;
  "tool.finished": ToolFinished;
  usage: Usage;
  error: RunError;
  "run.finished": RunFinished;
};

const KNOWN: ReadonlySet<string> = new Set<keyof Payloads>([
  "run.started",
  "message.delta",
  "reasoning.delta",
  "message.completed",
  "tool.started",
  "tool.finished",
  "usage",
  "error",
  "run.finished",
]);

/** One event of a run. `unknown` is of a kind that this version does not know; `unreadable` has damaged data. */
export type RunEvent =
  | { [T in keyof Payloads]: { seq: number; type: T; data: Payloads[T] } }[keyof Payloads]
  | { seq: number; type: "unknown" }
  | { seq: number; type: "unreadable" };

/**
 * Returns the run's event that an SSE event carries; null when it is none of the run's (it has no seq), such as the
 * gateway's word that this connection, not the run, has failed.
 */
export function toRunEvent(event: SseEvent): RunEvent | null {
  if (event.id === null || !/^\d{1,15}$/.test(event.id)) return null;
  const seq = Number(event.id);
  if (!KNOWN.has(event.type)) return { seq, type: "unknown" };
  const data = parseObject(event.data);
  if (data === null) return { seq, type: "unreadable" };
  // The contract's types are generated from the server's own description; the shape is trusted from here on.
  return { seq, type: event.type, data } as RunEvent;
}

/** Returns a JSON object, or null when the text is none. */
export function parseObject(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : null;
  } catch {
    return null;
  }
}
