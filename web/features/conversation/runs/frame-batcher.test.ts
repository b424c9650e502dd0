import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { FrameBatcher } from "./frame-batcher";
import { LiveStore } from "./live-turn";
import { START_OF_TURN } from "./run-reducer";

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

it("runs once per frame, however often it is asked", () => {
  const task = vi.fn();
  const batcher = new FrameBatcher(task);
  for (let count = 0; count < 100; count += 1) batcher.request();
  expect(task).not.toHaveBeenCalled();
  vi.advanceTimersByTime(20);
  expect(task).toHaveBeenCalledTimes(1);
  vi.advanceTimersByTime(500);
  expect(task).toHaveBeenCalledTimes(1);
});

it("waits longer when its task is slow", () => {
  const task = vi.fn();
  const batcher = new FrameBatcher(task, () => true);
  for (let time = 0; time < 1000; time += 5) {
    batcher.request();
    vi.advanceTimersByTime(5);
  }
  expect(task.mock.calls.length).toBeLessThanOrEqual(21);
  expect(task.mock.calls.length).toBeGreaterThan(10);
});

it("runs without frames in a hidden tab", () => {
  const hidden = vi.spyOn(document, "hidden", "get").mockReturnValue(true);
  const task = vi.fn();
  new FrameBatcher(task).request();
  vi.advanceTimersByTime(60);
  expect(task).toHaveBeenCalledTimes(1);
  hidden.mockRestore();
});

it("a store tells its listeners once per frame, with the newest state", () => {
  const store = new LiveStore();
  const seen: number[] = [];
  store.subscribe(() => seen.push(store.getSnapshot()?.parts.length ?? -1));
  for (let count = 1; count <= 30; count += 1) {
    store.set({ ...START_OF_TURN, parts: Array.from({ length: count }, () => ({ kind: "text", text: "x" })) });
  }
  vi.advanceTimersByTime(20);
  expect(seen).toEqual([30]);
  store.clear();
  expect(seen).toEqual([30, -1]);
});
