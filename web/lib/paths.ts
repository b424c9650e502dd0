import type { OtpType } from "@/lib/api/types";

/** Addresses of the pages; nothing else spells them. Pages end with a slash, as the exported folders do. */
export const paths = {
  home: "/",
  logIn: "/login/",
  signUp: "/signup/",
  forgotPassword: "/forgot-password/",
  resetPassword: "/reset-password/",
  callback: "/callback/",
  /** Where the code of a mail is typed in; with what the mail was sent for. */
  confirm: (type: OtpType | null = null) => (type ? `/confirm/?type=${type}` : "/confirm/"),
  /** Without an id: a new chat, whose session begins with its first message. */
  newChat: "/chat/",
  /** A chat; with a message, scrolled to it. */
  chat: (sessionId: string, message?: { id: string; order: number }) =>
    `/chat/?id=${sessionId}${message ? `&message=${message.id}&order=${message.order}` : ""}`,
  /** A chat with all of its messages in the page. */
  wholeChat: (sessionId: string) => `/chat/?id=${sessionId}&view=whole`,
  archive: "/archive/",
  search: (query = "") => (query ? `/search/?q=${encodeURIComponent(query)}` : "/search/"),
  settings: (section: SettingsSection = "profile") => `/settings/?section=${section}`,
} as const;

export type SettingsSection = "profile" | "appearance" | "notifications" | "usage" | "account";

// No real host: it only shows which addresses would lead away from where one is.
const PLACEHOLDER_ORIGIN = "http://localhost";

/** Returns the path in its plainest form when it stays within this web app, else the home page. */
export function safeReturnPath(path: string | null | undefined): string {
  if (!path?.startsWith("/") || path.includes("\\") || !/^[\x20-\x7e]*$/.test(path)) return paths.home;
  if (!URL.canParse(path, PLACEHOLDER_ORIGIN)) return paths.home;
  const url = new URL(path, PLACEHOLDER_ORIGIN);
  // `//elsewhere` is another host, and `/..//elsewhere` becomes that.
  if (url.origin !== PLACEHOLDER_ORIGIN || url.pathname.startsWith("//")) return paths.home;
  return url.pathname + url.search + url.hash;
}
