import { fireEvent, renderHook } from "@testing-library/react";
import { afterEach, describe, expect, test, vi } from "vitest";
import { matchesShortcut, type ShortcutName, shortcutKeys, shortcuts, useShortcut } from "./shortcuts";

afterEach(() => {
  document.body.replaceChildren();
});

function key(pressed: string, modifiers: Partial<KeyboardEventInit> = {}) {
  return { key: pressed, ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, ...modifiers };
}

test.each<[string, ShortcutName, Partial<KeyboardEventInit>]>([
  ["k", "palette", { ctrlKey: true }],
  ["O", "newChat", { ctrlKey: true, shiftKey: true }],
  ["/", "search", { ctrlKey: true }],
  // On a German keyboard "/" is Shift+7 and "?" is Shift+ß.
  ["/", "search", { ctrlKey: true, shiftKey: true }],
  ["/", "composer", { shiftKey: true }],
  ["?", "help", { shiftKey: true }],
  [":", "copyAnswer", { ctrlKey: true, shiftKey: true }],
])("%s is %s", (pressed, name, modifiers) => {
  const matching = (Object.keys(shortcuts) as ShortcutName[]).filter((other) =>
    matchesShortcut(key(pressed, modifiers), other),
  );
  expect(matching).toEqual([name]);
});

test.each([
  key("k"),
  key("k", { ctrlKey: true, altKey: true }),
  key("k", { ctrlKey: true, shiftKey: true }),
  key("o", { ctrlKey: true }),
])("$key alone or with other modifiers is none", (event) => {
  expect((Object.keys(shortcuts) as ShortcutName[]).some((name) => matchesShortcut(event, name))).toBe(false);
});

test("keys are written in the order they are pressed", () => {
  expect(shortcutKeys("newChat")).toEqual(["Ctrl", "Shift", "O"]);
});

describe("useShortcut", () => {
  test("single keys are left to those who write", () => {
    const handler = vi.fn();
    renderHook(() => useShortcut("help", handler));
    const field = document.body.appendChild(document.createElement("textarea"));
    fireEvent.keyDown(field, { key: "?" });
    expect(handler).not.toHaveBeenCalled();
    fireEvent.keyDown(document.body, { key: "?" });
    expect(handler).toHaveBeenCalledOnce();
  });

  test("shortcuts with Ctrl work while writing, but not behind a dialog", () => {
    const handler = vi.fn();
    renderHook(() => useShortcut("newChat", handler));
    const field = document.body.appendChild(document.createElement("textarea"));
    fireEvent.keyDown(field, { key: "O", ctrlKey: true, shiftKey: true });
    expect(handler).toHaveBeenCalledOnce();
    const dialog = document.body.appendChild(document.createElement("div"));
    dialog.setAttribute("role", "dialog");
    dialog.dataset.state = "open";
    fireEvent.keyDown(field, { key: "O", ctrlKey: true, shiftKey: true });
    expect(handler).toHaveBeenCalledOnce();
  });

  test("what somebody else has handled is left alone", () => {
    const handler = vi.fn();
    renderHook(() => useShortcut("stop", handler));
    const field = document.body.appendChild(document.createElement("input"));
    field.addEventListener("keydown", (event) => event.preventDefault());
    fireEvent.keyDown(field, { key: "Escape" });
    expect(handler).not.toHaveBeenCalled();
  });
});
