import type { Session } from "@/lib/api/types";
import { sentences } from "./sentences";

/** What a chat is called: its name, or "New chat" until it has one. */
export function sessionTitle(session: Pick<Session, "name"> | null | undefined): string {
  return session?.name || sentences.newChat;
}
