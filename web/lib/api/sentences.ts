import type { Catalogue } from "@/lib/catalogue";

/** What is said of requests that fail without a sentence of the server's. */
export const sentences = {
  unreachable: "Concerto cannot be reached. Check your connection and try again.",
  broken: "Concerto has a problem of its own. Try again in a moment.",
  notUnderstood: "Concerto did not understand this request. Reload the page and try again.",
  pageFailed: "Something went wrong in this page. Reload it and try again.",
} as const satisfies Catalogue;
