import { act, render, screen } from "@testing-library/react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { ConversationSnapshot } from "./controller/conversation-state";
import { LiveStore } from "./runs/live-turn";
import { START_OF_TURN } from "./runs/run-reducer";
import { sentences } from "./sentences";
import { TurnStatus } from "./turn-status";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

function snapshot(turn: ConversationSnapshot["turn"]): ConversationSnapshot {
  return { turn, isReconnecting: false, followError: null } as ConversationSnapshot;
}

function write(live: LiveStore, text: string): void {
  live.set({ ...START_OF_TURN, phase: "answering", parts: [{ kind: "text", text }] });
  live.flush();
}

async function pass(milliseconds: number): Promise<void> {
  await act(async () => {
    await vi.dynamicImportSettled();
    await vi.advanceTimersByTimeAsync(milliseconds);
  });
}

it("says an answer politely in sentences, and then that it has ended", async () => {
  const live = new LiveStore();
  const heard: string[] = [];
  const view = render(<TurnStatus snapshot={snapshot("idle")} live={live} onRetry={() => undefined} />);
  const region = view.container.querySelector("[aria-live]");
  expect(region).toHaveAttribute("aria-live", "polite");
  const observer = new MutationObserver((changes) => {
    for (const { addedNodes } of changes) for (const node of addedNodes) heard.push(node.textContent ?? "");
  });
  observer.observe(region as Element, { childList: true });
  const show = (turn: ConversationSnapshot["turn"]) =>
    act(() => view.rerender(<TurnStatus snapshot={snapshot(turn)} live={live} onRetry={() => undefined} />));

  show("running");
  for (const text of ["It", "It is **wa", "It is **warm**. Take", "It is **warm**. Take `a` hat.\n\n```\ncode\n"]) {
    act(() => write(live, text));
    await pass(100);
  }
  await pass(1000);
  act(() => write(live, "It is **warm**. Take `a` hat.\n\n```\ncode\n```\n\nGo. Now"));
  await pass(1000);
  show("idle");
  await pass(0);
  expect(heard).toEqual([sentences.turn.isAnswering, "It is warm. Take a hat.", "Go.", "Now", sentences.turn.hasEnded]);
  expect(screen.queryByText(/code/)).toBeNull();
  observer.disconnect();
});

it("says once that the model thinks, and not what", async () => {
  const live = new LiveStore();
  const view = render(<TurnStatus snapshot={snapshot("running")} live={live} onRetry={() => undefined} />);
  const region = view.container.querySelector("[aria-live]");
  const thought = { kind: "thought", text: "Secret. Plan. ", since: 0, milliseconds: null } as const;
  for (const text of ["Secret. ", thought.text]) {
    act(() => {
      live.set({ ...START_OF_TURN, phase: "answering", parts: [{ ...thought, text }] });
      live.flush();
    });
    await pass(1500);
  }
  act(() => {
    live.set({ ...START_OF_TURN, phase: "answering", parts: [thought, { kind: "text", text: "Said. And" }] });
    live.flush();
  });
  await pass(1500);
  expect(region?.textContent).toBe(`${sentences.turn.isAnswering}${sentences.turn.isThinking}Said.`);
});

it("does not say again what stood there before", async () => {
  const live = new LiveStore();
  write(live, "Said before. And now");
  const view = render(<TurnStatus snapshot={snapshot("running")} live={live} onRetry={() => undefined} />);
  const region = view.container.querySelector("[aria-live]");
  await pass(0);
  act(() => write(live, "Said before. And now this. Then"));
  await pass(1000);
  expect(region).toHaveTextContent(/And now this\./);
  expect(region).not.toHaveTextContent(/Said before/);
});
