import { sayPolitely } from "./live-region";
import type { LiveStore } from "./runs/live-turn";
import type { AnswerPart } from "./runs/run-reducer";
import { sentences } from "./sentences";

type Read = (parts: readonly AnswerPart[], isGrowing: boolean) => string;

/** Sentences that come faster are said together: a listener hears one after the other anyway. */
const PACE_MS = 1000;

export type SpokenAnswer = {
  readonly live: LiveStore;
  /** Says what is left, and some last words. */
  end: (lastWords: string) => void;
  /** Says nothing more. */
  stop: () => void;
};

/**
 * Says an answer to screen readers sentence by sentence while it is written, and once that the model thinks. What it had
 * said before is on the page and is not said again.
 */
export function sayAnswer(live: LiveStore): SpokenAnswer {
  let parts: readonly AnswerPart[] = live.getSnapshot()?.parts ?? [];
  let timer: ReturnType<typeof setTimeout> | null = null;
  const before = parts;
  let hasThought = parts.some((part) => part.kind === "thought");
  // Its own module, as it needs the parser that comes with the renderer.
  const reading: Promise<Read | null> = import("./markdown/speech").then(
    ({ answerReader }) => {
      const read = answerReader();
      read(before, true);
      return read;
    },
    () => null,
  );

  async function say(isGrowing: boolean, lastWords = ""): Promise<void> {
    const read = await reading;
    const words = read?.(parts, isGrowing) ?? "";
    if (words) sayPolitely(words);
    if (lastWords) sayPolitely(lastWords);
  }

  const unsubscribe = live.subscribe(() => {
    const now = live.getSnapshot()?.parts;
    // At its end the answer is taken away before it is said to have ended.
    if (!now || now.length === 0) return;
    parts = now;
    if (!hasThought && now.at(-1)?.kind === "thought") {
      hasThought = true;
      sayPolitely(sentences.turn.isThinking);
    }
    timer ??= setTimeout(() => {
      timer = null;
      void say(true);
    }, PACE_MS);
  });

  function stop(): void {
    unsubscribe();
    if (timer !== null) clearTimeout(timer);
    timer = null;
  }

  return {
    live,
    stop,
    end: (lastWords) => {
      stop();
      void say(false, lastWords);
    },
  };
}
