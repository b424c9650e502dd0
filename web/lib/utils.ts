import { type ClassValue, clsx } from "clsx";
import { twMerge } from "tailwind-merge";

/** Joins class names; of Tailwind classes that contradict each other the last wins. */
export function cn(...classes: ClassValue[]): string {
  return twMerge(clsx(classes));
}

/** True on Apple's systems, where shortcuts use ⌘ instead of Ctrl. */
export function isApple(): boolean {
  return typeof navigator !== "undefined" && /Mac|iPhone|iPad/.test(navigator.userAgent);
}
