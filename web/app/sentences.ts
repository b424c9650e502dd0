import type { Catalogue } from "@/lib/catalogue";

/** What the pages say that belong to no feature. */
export const sentences = {
  description: "Chat with language models: your conversations, kept and continued.",
  noScript: "Concerto needs JavaScript. Allow it for this site, then load the page again.",
  goToChats: "Go to your chats",
  error: {
    title: "Something went wrong",
    explanation: "This page could not be shown. Nothing that was sent is lost.",
    requestId: (id: string) => `Request id: ${id}`,
    retry: "Try again",
  },
  notFound: {
    title: "Page not found",
    heading: "There is no page here",
    explanation: "The address may be misspelt, or the page may have moved. Your chats are where they were.",
  },
} as const satisfies Catalogue;
