import type { Catalogue } from "@/lib/catalogue";

export const sentences = {
  unknownError: "Something went wrong. Try again.",
  requestId: "Request id:",
  /** A reason and the id under which the server's logs know the request. */
  withRequestId: (reason: string, requestId: string) => `${reason} (request id ${requestId})`,
  retry: "Try again",
  secondsLeft: (seconds: number) => (seconds === 1 ? "1 second left" : `${seconds} seconds left`),
  notices: "Notices",
  dismiss: "Dismiss",
  menuNotLoaded: "The menu could not be loaded. Check your connection and try again.",
} as const satisfies Catalogue;
