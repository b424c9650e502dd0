import type { Catalogue } from "@/lib/catalogue";

/** What is said of a sign-in that cannot begin, go on or end. */
export const sentences = {
  notConfigured: "This installation cannot sign anybody in: its Supabase key is not configured.",
  notValid: "This sign-in is not valid any more. Log in again.",
  unavailable: "The sign-in cannot be checked at the moment. Try again shortly.",
  notEnded: "You could not be logged out.",
} as const satisfies Catalogue;
