import type { Catalogue } from "@/lib/catalogue";

/** What the lists of chats say. */
export const sentences = {
  newChat: "New chat",
  list: {
    loading: "Loading chats",
    loadFailed: "The chats could not be loaded.",
    moreFailed: "More chats could not be loaded.",
    count: (count: number, hasMore: boolean) =>
      `${count}${hasMore ? " or more" : ""} ${count === 1 ? "chat" : "chats"}`,
    noMatch: (query: string) => `No chat is named like “${query}”`,
    noMatchHint: "Try fewer letters, or search what was said instead.",
    empty: "No chats yet",
    emptyHint: "Write a message, and the chat appears here.",
    emptyArchive: "The archive is empty",
    emptyArchiveHint: "Archive a chat to keep it out of the way without deleting it.",
  },
  row: {
    options: (title: string) => `Options for ${title}`,
    name: "Chat name",
    rename: "Rename",
    archive: "Archive",
    restore: "Restore",
    delete: "Delete",
  },
  changes: {
    undo: "Undo",
    archived: (title: string) => `Archived “${title}”`,
    restored: (title: string) => `Restored “${title}”`,
    deleted: (title: string) => `Deleted “${title}”`,
    renameFailed: "The chat could not be renamed.",
    archiveFailed: "The chat could not be archived.",
    restoreFailed: "The chat could not be restored.",
    deleteFailed: (title: string) => `“${title}” could not be deleted.`,
  },
  days: {
    today: "Today",
    yesterday: "Yesterday",
  },
} as const satisfies Catalogue;
