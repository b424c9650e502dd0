import type { RunState } from "@/lib/api/types";
import { sentences } from "../sentences";

/** Returns a sentence for the reason why an answer is missing or ends early. */
export function failureSentence(reason: string, state?: RunState | null): string {
  if (reason === "CANCELLED" || state === "CANCELLED") return sentences.reasons.CANCELLED;
  if (reason === "" && state === "INTERRUPTED") return sentences.reasons.RUN_INTERRUPTED;
  const known: Readonly<Record<string, string>> = sentences.reasons;
  return (Object.hasOwn(known, reason) ? known[reason] : undefined) ?? sentences.otherReason;
}
