import type { Catalogue } from "@/lib/catalogue";

/** What the search page says. */
export const sentences = {
  title: "Search",
  searchMessages: "Search messages",
  searching: "Searching…",
  noneFound: "No messages found",
  bestMatches: (count: number) => `The best ${count} matches`,
  messages: (count: number) => (count === 1 ? "1 message" : `${count} messages`),
  begin: "Find a message",
  beginHint: "Type some words that you or the assistant wrote. Every chat is searched, archived ones too.",
  failed: "The messages could not be searched.",
  moreFailed: "More messages could not be loaded.",
  showMore: "Show more",
  partial: "Very many messages have these words, so only the newest were searched. Rarer words find older ones.",
  onlyIn: (title: string) => `Only in “${title}”`,
  onlyInOneChat: "Only in one chat",
  searchAllChats: "Search all chats",
  nothingWith: (query: string) => `No messages with “${query}”`,
  nothingHint: "Every word has to occur in a message. Try fewer words, or another spelling.",
  onlyOneChatSearched: "Only one chat was searched.",
  roles: {
    user: "You",
    assistant: "Assistant",
    system: "System",
    tool: "Tool",
  },
} as const satisfies Catalogue;
