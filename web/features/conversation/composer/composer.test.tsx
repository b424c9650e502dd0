import { fireEvent, render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { createRef } from "react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { MAX_BYTES } from "@/lib/api/limits";
import { until } from "@/test/until";
import { Composer, type ComposerHandle } from "./composer";
import type { Choices } from "./use-choices";

const CHOICES: Choices = {
  models: [],
  agents: [],
  choice: {},
  model: "",
  agent: "",
  chooseModel: () => undefined,
  chooseAgent: () => undefined,
};

let isTouch = false;
const onSend = vi.fn<(text: string) => boolean>();
const onStop = vi.fn();

beforeEach(() => {
  isTouch = false;
  // Leaving a page keeps its draft, so the test before may have left one.
  localStorage.clear();
  onSend.mockReset().mockReturnValue(true);
  // jsdom knows no media.
  vi.stubGlobal("matchMedia", (query: string) => ({ matches: query.includes("coarse") === isTouch }));
});

afterEach(() => {
  vi.unstubAllGlobals();
});

type Changes = Partial<Parameters<typeof Composer>[0]>;

function show(changes: Changes = {}) {
  const ref = createRef<ComposerHandle>();
  const props = { ref, sessionId: "s1", turn: "idle", isDisabled: false, choices: CHOICES, onSend, onStop } as const;
  const view = render(<Composer {...props} {...changes} />);
  return {
    handle: () => ref.current,
    unmount: view.unmount,
    update: (next: Changes) => view.rerender(<Composer {...props} {...changes} {...next} />),
  };
}

const box = () => screen.getByRole<HTMLTextAreaElement>("textbox", { name: "Message" });

describe("the message box", () => {
  it("sends with Enter and is empty then", async () => {
    show();
    await userEvent.type(box(), "Hello{Shift>}{Enter}{/Shift}you{Enter}");
    expect(onSend.mock.calls).toEqual([["Hello\nyou"]]);
    expect(box().value).toBe("");
  });

  it("does not send while a word is being chosen", () => {
    show();
    fireEvent.change(box(), { target: { value: "にほん" } });
    fireEvent.keyDown(box(), { key: "Enter", isComposing: true });
    fireEvent.keyDown(box(), { key: "Enter", keyCode: 229 });
    expect(onSend).not.toHaveBeenCalled();
  });

  it("begins a line with Enter where there is no other key for it", async () => {
    isTouch = true;
    show();
    await userEvent.type(box(), "a{Enter}b");
    expect(box().value).toBe("a\nb");
    await userEvent.click(screen.getByRole("button", { name: "Send" }));
    expect(onSend).toHaveBeenCalledWith("a\nb");
  });

  it("sends nothing blank", async () => {
    show();
    await userEvent.type(box(), "   {Enter}");
    expect(onSend).not.toHaveBeenCalled();
    expect(screen.getByRole<HTMLButtonElement>("button", { name: "Send" }).disabled).toBe(true);
  });

  it("stops instead of sending while an answer comes, and keeps what is typed", async () => {
    show({ turn: "running" });
    await userEvent.type(box(), "later");
    await userEvent.click(screen.getByRole("button", { name: "Stop" }));
    expect(onStop).toHaveBeenCalledOnce();
    expect(onSend).not.toHaveBeenCalled();
    expect(box().value).toBe("later");
  });

  it("sends once the answer has ended what was sent during it, as it stands then", async () => {
    const chat = show({ turn: "running" });
    await userEvent.type(box(), "later{Enter}");
    expect(screen.getByRole("status").textContent).toContain("sent when the answer has ended");
    await userEvent.type(box(), ", please");
    chat.update({ turn: "stopping" });
    expect(onSend).not.toHaveBeenCalled();
    chat.update({ turn: "idle" });
    expect(onSend.mock.calls).toEqual([["later, please"]]);
    expect(box().value).toBe("");
    expect(screen.getByRole("status").textContent).toBe("");
    chat.update({ turn: "running" });
    chat.update({ turn: "idle" });
    expect(onSend).toHaveBeenCalledOnce();
  });

  it("sends nothing by itself that was taken back or emptied meanwhile", async () => {
    const chat = show({ turn: "running" });
    await userEvent.type(box(), "later{Enter}");
    await userEvent.click(screen.getByRole("button", { name: "Do not send it yet" }));
    chat.update({ turn: "idle" });
    expect(onSend).not.toHaveBeenCalled();
    expect(box().value).toBe("later");
    chat.update({ turn: "running" });
    await userEvent.type(box(), "{Enter}");
    await userEvent.clear(box());
    chat.update({ turn: "idle" });
    expect(onSend).not.toHaveBeenCalled();
    expect(screen.getByRole("status").textContent).toBe("");
  });

  it("keeps the focus when the button that was pressed goes away", async () => {
    const chat = show();
    await userEvent.type(box(), "Hello");
    await userEvent.click(screen.getByRole("button", { name: "Send" }));
    chat.update({ turn: "starting" });
    expect(document.activeElement).toBe(box());
  });

  it("says that a text is too long", () => {
    const mebibytes = MAX_BYTES.Turn.content / 2 ** 20;
    show();
    fireEvent.change(box(), { target: { value: "ä".repeat(MAX_BYTES.Turn.content) } });
    expect(screen.getByRole("alert").textContent).toContain(
      `it has ${2 * mebibytes}.00 MiB, and at most ${mebibytes} MiB can be sent`,
    );
    fireEvent.keyDown(box(), { key: "Enter" });
    expect(onSend).not.toHaveBeenCalled();
  });
});

describe("drafts", () => {
  it("are there again, each with its chat", async () => {
    const first = show();
    await userEvent.type(box(), "unsent");
    first.unmount();
    show({ sessionId: "s2" }).unmount();
    show();
    expect(box().value).toBe("unsent");
  });

  it("are gone when their text is deleted", async () => {
    const first = show();
    await userEvent.type(box(), "unsent");
    await userEvent.clear(box());
    first.unmount();
    expect(localStorage.length).toBe(0);
  });

  it("of what is sent stay until the server has it", async () => {
    const first = show();
    await userEvent.type(box(), "sent{Enter}");
    first.unmount();
    expect(localStorage.getItem("concerto-draft:s1")).toBe("sent");
  });

  it("typed behind the first message go along when a new chat gets its session", async () => {
    const chat = show({ sessionId: null });
    await userEvent.type(box(), "first{Enter}");
    chat.update({ sessionId: null, turn: "running" });
    await userEvent.type(box(), "second");
    chat.update({ sessionId: "s9", turn: "running" });
    chat.unmount();
    expect(localStorage.getItem("concerto-draft:s9")).toBe("second");
    expect(localStorage.getItem("concerto-draft:new")).toBeNull();
  });

  it("take back what could not be sent, before what was typed since", async () => {
    const { handle } = show();
    await userEvent.type(box(), "new");
    handle()?.add("old");
    await until(() => expect(box().value).toBe("old\n\nnew"));
  });
});
