import { MAX_BYTES } from "@/lib/api/limits";
import { sentences } from "./sentences";

const MEBIBYTE = 2 ** 20;
const MAX_MESSAGE_BYTES = MAX_BYTES.Turn.content;

/** Returns why a text cannot be sent because of its size; null when it can. */
export function sizeProblem(text: string): string | null {
  // UTF-8 takes at most three bytes per UTF-16 unit, so most texts need no counting.
  if (text.length * 3 <= MAX_MESSAGE_BYTES) return null;
  const bytes = new TextEncoder().encode(text).length;
  if (bytes <= MAX_MESSAGE_BYTES) return null;
  const most = Number((MAX_MESSAGE_BYTES / MEBIBYTE).toFixed(2));
  return sentences.composer.tooLong((bytes / MEBIBYTE).toFixed(2), String(most));
}
