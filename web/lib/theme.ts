"use client";

import { useCallback, useSyncExternalStore } from "react";
import type { Theme } from "./api/types";

/** Where the choice is kept on this device; public/theme.js reads it before the first paint. */
const KEY = "concerto-theme";
const CHANGED = "concerto-theme-changed";

/** The choice of this device; "system" when there is none. */
export function storedTheme(): Theme {
  try {
    const stored = localStorage.getItem(KEY);
    return stored === "light" || stored === "dark" ? stored : "system";
  } catch {
    return "system";
  }
}

function resolve(theme: Theme): "light" | "dark" {
  if (theme !== "system") return theme;
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

function paint(theme: Theme): void {
  const resolved = resolve(theme);
  document.documentElement.classList.toggle("dark", resolved === "dark");
  document.documentElement.style.colorScheme = resolved;
}

/** Shows the theme and remembers it on this device. Storing it in the account is the caller's matter. */
export function applyTheme(theme: Theme): void {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // Without storage the choice lasts as long as the page.
  }
  paint(theme);
  window.dispatchEvent(new Event(CHANGED));
}

function subscribe(notify: () => void): () => void {
  const device = matchMedia("(prefers-color-scheme: dark)");
  const changed = () => {
    paint(storedTheme());
    notify();
  };
  const stored = (event: StorageEvent) => {
    if (event.key === KEY || event.key === null) changed();
  };
  window.addEventListener(CHANGED, notify);
  window.addEventListener("storage", stored);
  device.addEventListener("change", changed);
  return () => {
    window.removeEventListener(CHANGED, notify);
    window.removeEventListener("storage", stored);
    device.removeEventListener("change", changed);
  };
}

/** The theme of this device: what was chosen, and what that means at the moment. */
export function useTheme(): { theme: Theme; resolved: "light" | "dark"; setTheme: (theme: Theme) => void } {
  const theme = useSyncExternalStore(subscribe, storedTheme, () => "system" as const);
  const resolved = useSyncExternalStore(
    subscribe,
    () => resolve(storedTheme()),
    () => "light" as const,
  );
  return { theme, resolved, setTheme: useCallback(applyTheme, []) };
}
