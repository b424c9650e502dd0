import type { Catalogue } from "@/lib/catalogue";

/** Apart from the other settings' sentences, as every page can change the theme. */
export const sentences = {
  light: "Light",
  dark: "Dark",
  system: "System",
  saveFailed: "The theme could not be saved.",
} as const satisfies Catalogue;
