"use client";

import { useEffect, useRef } from "react";
import { isApple } from "./utils";

type Shortcut = {
  description: string;
  /** What KeyboardEvent.key may be; layouts differ in what Shift makes of a key. */
  keys: readonly string[];
  /** Ctrl, or ⌘ on Apple's systems. */
  mod?: boolean;
  /** Absent means that it does not matter: "?" needs Shift on some keyboards and not on others. */
  shift?: boolean;
  /** How the key is written. */
  label: string;
};

/** Every shortcut that works in the whole app, in the order of the dialog that lists them. */
export const shortcuts = {
  palette: { description: "Open the command palette", keys: ["k"], mod: true, shift: false, label: "K" },
  newChat: { description: "Begin a new chat", keys: ["o"], mod: true, shift: true, label: "O" },
  search: { description: "Search messages", keys: ["/"], mod: true, label: "/" },
  composer: { description: "Go to the message box", keys: ["/"], label: "/" },
  stop: { description: "Stop the answer, or close what is open", keys: ["Escape"], label: "Esc" },
  copyAnswer: { description: "Copy the last answer", keys: [";", ":"], mod: true, shift: true, label: ";" },
  help: { description: "List the keyboard shortcuts", keys: ["?"], label: "?" },
} as const satisfies Record<string, Shortcut>;

export type ShortcutName = keyof typeof shortcuts;

/** Shortcuts that work where the focus is, for the dialog only. */
export const localShortcuts: readonly { where: string; description: string; keys: readonly string[] }[] = [
  { where: "Everywhere", description: "Go to the newest notice, for instance to undo", keys: ["Alt", "T"] },
  { where: "In the list of chats", description: "Go from chat to chat", keys: ["↑", "↓"] },
  { where: "In the list of chats", description: "Rename the chat", keys: ["F2"] },
  { where: "In the list of chats", description: "Delete the chat", keys: ["Delete"] },
  { where: "In the message box", description: "Send the message", keys: ["Enter"] },
  { where: "In the message box", description: "Begin a new line", keys: ["Shift", "Enter"] },
];

/** The keys of a shortcut as this system writes them. */
export function shortcutKeys(name: ShortcutName): string[] {
  const { mod, shift, label }: Shortcut = shortcuts[name];
  return [...(mod ? [isApple() ? "⌘" : "Ctrl"] : []), ...(shift ? ["Shift"] : []), label];
}

/** True when the key that was pressed means the shortcut. */
export function matchesShortcut(
  event: Pick<KeyboardEvent, "key" | "ctrlKey" | "metaKey" | "altKey" | "shiftKey">,
  name: ShortcutName,
): boolean {
  const { keys, mod = false, shift }: Shortcut = shortcuts[name];
  const pressed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (!keys.includes(pressed) || event.altKey) return false;
  if (shift !== undefined && event.shiftKey !== shift) return false;
  const hasMod = isApple() ? event.metaKey || event.ctrlKey : event.ctrlKey;
  return hasMod === mod;
}

function takesText(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
}

function inOverlay(): boolean {
  return document.querySelector('[role="dialog"][data-state="open"], [role="menu"][data-state="open"]') !== null;
}

/**
 * Calls `handler` when the shortcut is pressed anywhere. Single keys are left to fields that take text, and all but the
 * palette's to an open dialog or menu. Escape is never taken from somebody who has handled it already.
 */
export function useShortcut(name: ShortcutName, handler: (event: KeyboardEvent) => void, enabled = true): void {
  const newest = useRef(handler);
  useEffect(() => {
    newest.current = handler;
  });
  useEffect(() => {
    if (!enabled) return;
    const onKeyDown = (event: KeyboardEvent) => {
      if (event.defaultPrevented || event.isComposing || !matchesShortcut(event, name)) return;
      const isSingleKey = !("mod" in shortcuts[name]) && name !== "stop";
      if (isSingleKey && takesText(event.target)) return;
      if (name !== "palette" && inOverlay()) return;
      // Escape has other meanings to the browser, which its handlers weigh themselves.
      if (name !== "stop") event.preventDefault();
      newest.current(event);
    };
    window.addEventListener("keydown", onKeyDown);
    return () => window.removeEventListener("keydown", onKeyDown);
  }, [name, enabled]);
}
