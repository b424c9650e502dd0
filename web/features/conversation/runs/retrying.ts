import { ApiError } from "@/lib/api/errors";

const PAUSES_MS = [500, 1500];
const LONGEST_PAUSE_MS = 5000;

/** Does a thing that is safe to repeat, and repeats it shortly while its failure is one that may pass. */
export async function withRetries<T>(attempt: () => Promise<T>): Promise<T> {
  for (const pause of PAUSES_MS) {
    try {
      return await attempt();
    } catch (error) {
      const asked = error instanceof ApiError ? (error.retryAfterSeconds ?? 0) * 1000 : 0;
      if (!isRetryable(error) || asked > LONGEST_PAUSE_MS) throw error;
      await pauseFor(Math.max(asked, pause));
    }
  }
  return attempt();
}

/** Repeats a reading until it succeeds, or fails for good, or the signal fires (which throws). */
export async function untilAnswered<T>(attempt: () => Promise<T>, signal: AbortSignal): Promise<T> {
  for (let pause = 300; ; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
    try {
      return await attempt();
    } catch (error) {
      if (signal.aborted || !isRetryable(error)) throw error;
      await pauseFor(pause, signal);
    }
  }
}

/** Waits. Throws the signal's reason when it fires. */
export function pauseFor(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, milliseconds);
    if (signal?.aborted) abort();
    else signal?.addEventListener("abort", abort, { once: true });
  });
}

function isRetryable(error: unknown): boolean {
  return error instanceof ApiError && error.isRetryable;
}
