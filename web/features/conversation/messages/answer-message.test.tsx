import { act, fireEvent, render, screen, within } from "@testing-library/react";
import { expect, it, vi } from "vitest";
import type { Message } from "@/lib/api/types";
import { ItemBuilder } from "../controller/items";
import { windowOf } from "../controller/message-window";
import { loadRenderer, renderer } from "../markdown/load-renderer";
import { LiveStore } from "../runs/live-turn";
import { START_OF_TURN, type TurnState } from "../runs/run-reducer";
import { sentences } from "../sentences";
import { messageOf } from "../testing/stored";
import { AnswerMessage } from "./answer-message";
import type { MessageActions } from "./message-actions";

const THOUGHT = "Sechs **mal** zwei: <script>alert(1)</script> <img src=x onerror=alert(1)> ä";

function actionsOf(): MessageActions {
  return {
    regenerate: vi.fn(),
    continueAnswer: vi.fn(),
    edit: vi.fn(),
    selectVersion: vi.fn(),
    retry: vi.fn(),
    takeBack: vi.fn(),
    jumpToLatest: vi.fn(),
  };
}

async function renderStored(fields: Partial<Message>, isLast = true) {
  loadRenderer();
  await vi.waitUntil(() => renderer() !== null);
  const window = windowOf([messageOf(1), messageOf(2, fields)], { hasEarlier: false, hasLater: false });
  const item = new ItemBuilder(new Map()).build(window).at(-1);
  if (item?.kind !== "answer") throw new Error("no answer");
  const actions = actionsOf();
  const live = new LiveStore();
  render(<AnswerMessage {...{ item, live, actions, isLast }} isBusy={false} isTarget={false} />);
  return actions;
}

function unfold(summary: HTMLElement): HTMLElement {
  const details = summary.closest("details") as HTMLDetailsElement;
  details.open = true;
  fireEvent(details, new Event("toggle"));
  return details;
}

it("shows a thought folded, with its time; unfolded it is safe Markdown", async () => {
  await renderStored({ content: "Zwölf.", reasoning: THOUGHT, reasoning_milliseconds: 12_345 });
  const summary = screen.getByText("Thought for 12 s");
  expect(screen.queryByText(/Sechs/)).toBeNull();
  const details = unfold(summary);
  expect(within(details).getByText("mal").tagName).toBe("STRONG");
  expect(details.querySelector("script, img[onerror]")).toBeNull();
  expect(details).toHaveTextContent("ä");
});

it.each([
  [0, "Thought"],
  [400, "Thought for a moment"],
  [59_400, "Thought for 59 s"],
  [125_000, "Thought for 2 min 5 s"],
])("says how long %i ms are", (milliseconds, words) => {
  expect(sentences.message.thought(milliseconds)).toBe(words);
});

it("copies an answer without its thought", async () => {
  const writeText = vi.fn().mockResolvedValue(undefined);
  vi.stubGlobal("navigator", { ...navigator, clipboard: { writeText } });
  await renderStored({ content: "Zwölf.", reasoning: THOUGHT, reasoning_milliseconds: 1 });
  await act(async () => screen.getByRole("button", { name: sentences.message.copy }).click());
  expect(writeText).toHaveBeenCalledExactlyOnceWith("Zwölf.");
  vi.unstubAllGlobals();
});

it.each(["length", "MAX_TOKENS"])("offers to continue what was cut off (%s)", async (reason) => {
  const actions = await renderStored({ content: "Once upon", metadata: { finish_reason: reason } });
  expect(screen.getByText(sentences.message.cutOff)).toBeVisible();
  screen.getByRole("button", { name: sentences.message.continue }).click();
  expect(actions.continueAnswer).toHaveBeenCalledOnce();
});

it("offers it for the last answer alone, and for one that ended by itself not at all", async () => {
  await renderStored({ content: "Once upon", metadata: { finish_reason: "length" } }, false);
  expect(screen.getByText(sentences.message.cutOff)).toBeVisible();
  expect(screen.queryByRole("button", { name: sentences.message.continue })).toBeNull();
  document.body.replaceChildren();
  await renderStored({ content: "The end.", metadata: { finish_reason: "stop" } });
  expect(screen.queryByText(sentences.message.cutOff)).toBeNull();
});

it("says why an answer was filtered, and that its words are kept", async () => {
  await renderStored({ content: "Once", metadata: { partial: true, error_reason: "CONTENT_FILTERED" } });
  expect(screen.getByText(/content filter stopped the answer\. What was said by then is kept\./)).toBeVisible();
});

it("says that the model thinks while it does, and for how long once it speaks", () => {
  const live = new LiveStore();
  const show = (parts: TurnState["parts"]) =>
    act(() => {
      live.set({ ...START_OF_TURN, phase: "answering", parts });
      live.flush();
    });
  const item = { kind: "live", key: "k" } as const;
  render(<AnswerMessage {...{ item, live }} actions={actionsOf()} isBusy isLast isTarget={false} />);
  const thought = { kind: "thought", text: "Hm", since: 0, milliseconds: null } as const;
  show([thought]);
  expect(screen.getAllByText(sentences.turn.thinking)).toHaveLength(1);
  show([
    { ...thought, milliseconds: 3000 },
    { kind: "text", text: "Yes" },
  ]);
  expect(screen.queryByText(sentences.turn.thinking)).toBeNull();
  expect(screen.getByText("Thought for 3 s")).toBeVisible();
});
