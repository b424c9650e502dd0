import type { Message, Run, RunState } from "@/lib/api/types";

/** A stored message for tests; its id says its order unless another is given. */
export function messageOf(order: number, fields: Partial<Message> = {}): Message {
  return {
    id: `m${order}`,
    session_id: "s1",
    role: order % 2 === 1 ? "user" : "assistant",
    content: `text ${order}`,
    timestamp: "2026-11-20T12:00:00Z",
    order,
    metadata: null,
    parent_id: order === 1 ? "" : `m${order - 1}`,
    is_active: true,
    reasoning: "",
    reasoning_milliseconds: 0,
    ...fields,
  };
}

/** A run for tests. */
export function runOf(id: string, state: RunState, fields: Partial<Run> = {}): Run {
  return {
    id,
    session_id: "s1",
    user_id: "u1",
    state,
    model: "test",
    agent: "assistant",
    request_id: "",
    user_message_id: "",
    answer_message_id: "",
    error_reason: "",
    usage: null,
    created_at: null,
    started_at: null,
    finished_at: null,
    is_cancellation_requested: false,
    ...fields,
  };
}
