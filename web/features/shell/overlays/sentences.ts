import type { Catalogue } from "@/lib/catalogue";
import type { SettingsSection } from "@/lib/paths";
import type { ShortcutName } from "@/lib/shortcuts";

/** What the command palette and the list of shortcuts say; loaded with them. */
export const sentences = {
  palette: {
    title: "Command palette",
    label: "Chat or command",
    placeholder: "Go to a chat or do something",
    chats: "Chats",
    loading: "Loading chats…",
    loadFailed: "The chats could not be loaded.",
    commands: "Commands",
    newChat: "New chat",
    search: "Search messages",
    searchFor: (text: string) => `Search messages for “${text}”`,
    archive: "Archive",
    settings: (section: string) => `Settings: ${section}`,
    theme: (name: string) => `Theme: ${name}`,
    shortcuts: "Keyboard shortcuts",
    logOut: "Log out",
  },
  sections: {
    profile: "Profile",
    appearance: "Appearance",
    notifications: "Notifications",
    usage: "Usage",
    account: "Account",
  } satisfies Record<SettingsSection, string>,
  shortcuts: {
    title: "Keyboard shortcuts",
    description: "Everything can be done without a mouse.",
    everywhere: "Everywhere",
    inList: "In the list of chats",
    inComposer: "In the message box",
    names: {
      palette: "Open the command palette",
      newChat: "Begin a new chat",
      search: "Search messages",
      composer: "Go to the message box",
      stop: "Stop the answer, or close what is open",
      copyAnswer: "Copy the last answer",
      help: "List the keyboard shortcuts",
    } satisfies Record<ShortcutName, string>,
    newestNotice: "Go to the newest notice, for instance to undo",
    fromChatToChat: "Go from chat to chat",
    rename: "Rename the chat",
    delete: "Delete the chat",
    send: "Send the message",
    newLine: "Begin a new line",
  },
} as const satisfies Catalogue;
