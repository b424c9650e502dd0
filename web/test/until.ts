import { vi } from "vitest";

/** How long a test waits for what must come, in milliseconds; only a failing test waits so long. */
export const PATIENCE_MS = 20_000;

/** Waits until a check no longer throws. */
export function until<T>(check: () => T | Promise<T>): Promise<T> {
  return vi.waitFor(check, { timeout: PATIENCE_MS, interval: 5 });
}
