import type { Catalogue } from "@/lib/catalogue";

/** What stands in a rendered answer besides its own text; loaded with the renderer. */
export const sentences = {
  code: "Code",
  codeIn: (language: string) => `Code in ${language}`,
  copy: "Copy",
  copyCode: "Copy code",
  copied: "Copied",
  notCopied: "Not copied",
  formula: "Formula",
  table: "Table",
  image: "Image",
  details: "Details",
  done: "Done",
  toDo: "To do",
  footnote: (number: number) => `Footnote ${number}`,
  backFromFootnote: (number: number) => `Back to the text from footnote ${number}`,
} as const satisfies Catalogue;
