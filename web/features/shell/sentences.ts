import type { Catalogue } from "@/lib/catalogue";

/** What the frame of the app says. */
export const sentences = {
  skipToContent: "Skip to content",
  loading: "Loading",
  chats: "Chats",
  newChat: "New chat",
  newChatHint: (keys: string) => `New chat (${keys})`,
  filter: "Filter chats",
  search: "Search",
  archive: "Archive",
  openChats: "Open chats",
  sheet: "Chats and account",
  close: "Close",
  account: {
    menu: "Account menu",
    settings: "Settings",
    shortcuts: "Keyboard shortcuts",
    theme: "Theme",
    logOut: "Log out",
  },
} as const satisfies Catalogue;
