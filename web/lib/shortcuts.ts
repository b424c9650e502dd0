"use client";

import { useEffect, useRef } from "react";
import { isApple } from "./utils";

type Shortcut = {
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
  palette: { keys: ["k"], mod: true, shift: false, label: "K" },
  newChat: { keys: ["o"], mod: true, shift: true, label: "O" },
  search: { keys: ["/"], mod: true, label: "/" },
  composer: { keys: ["/"], label: "/" },
  stop: { keys: ["Escape"], label: "Esc" },
  copyAnswer: { keys: [";", ":"], mod: true, shift: true, label: ";" },
  help: { keys: ["?"], label: "?" },
} as const satisfies Record<string, Shortcut>;

export type ShortcutName = keyof typeof shortcuts;

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
