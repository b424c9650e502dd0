import type { Theme } from "@/lib/api/types";
import { sentences } from "./sentences";

/** What can be chosen, in the order in which it is shown. */
export const THEMES: readonly { value: Theme; label: string }[] = [
  { value: "light", label: sentences.light },
  { value: "dark", label: sentences.dark },
  { value: "system", label: sentences.system },
];
