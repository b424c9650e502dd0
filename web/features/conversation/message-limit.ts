import { sentences } from "./sentences";

/** Most bytes of one message. */
export const MAX_MESSAGE_BYTES = 1024 * 1024;

/** Returns why a text cannot be sent because of its size; null when it can. */
export function sizeProblem(text: string): string | null {
  // UTF-8 takes at most three bytes per UTF-16 unit, so most texts need no counting.
  if (text.length * 3 <= MAX_MESSAGE_BYTES) return null;
  const bytes = new TextEncoder().encode(text).length;
  if (bytes <= MAX_MESSAGE_BYTES) return null;
  const size = (bytes / MAX_MESSAGE_BYTES).toFixed(2);
  return sentences.composer.tooLong(size);
}
