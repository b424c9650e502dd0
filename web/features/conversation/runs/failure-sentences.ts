import type { RunState } from "@/lib/api/types";

// What people read when only the reason's name was kept. The names are those of docs/errors.md.
const SENTENCES: Readonly<Record<string, string>> = {
  MODEL_CREDENTIALS_REJECTED: "The model provider rejected the server's credentials.",
  MODEL_NOT_FOUND: "The provider does not have this model.",
  MODEL_RATE_LIMITED: "The model provider asks to slow down.",
  MODEL_QUOTA_EXHAUSTED: "The account at the model provider has no quota left.",
  MODEL_TIMEOUT: "The model did not answer in time.",
  MODEL_UNREACHABLE: "The model provider cannot be reached.",
  MODEL_CONNECTION_LOST: "The connection to the model broke.",
  MODEL_UNAVAILABLE: "The model provider has an error of its own.",
  MODEL_ANSWER_MALFORMED: "The model provider sent something unreadable.",
  MODEL_REQUEST_REFUSED: "The model provider refused the request.",
  PROMPT_TOO_LONG: "The message does not fit the model's window.",
  CONTENT_FILTERED: "The model provider's content filter stopped the answer.",
  RUN_INTERRUPTED: "The answer was interrupted.",
  RUN_LIMIT_REACHED: "The answer reached the limit of steps or tokens.",
};

/** Returns a sentence for the reason why an answer is missing or ends early. */
export function sentenceOf(reason: string, state?: RunState | null): string {
  if (reason === "CANCELLED" || state === "CANCELLED") return "You stopped this answer.";
  if (reason === "" && state === "INTERRUPTED") return "The answer was interrupted.";
  return SENTENCES[reason] ?? "The answer could not be finished.";
}
