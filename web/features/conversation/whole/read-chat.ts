import type { Message, Session } from "@/lib/api/types";
import type { ConversationApi } from "../conversation-api";

const PAGE_SIZE = 100;

/** A chat with all messages of the branch that it shows, the oldest first. */
export type WholeChat = { session: Session; messages: readonly Message[] };

/** Reads a chat to its end, page by page. Throws ApiError; what was read by then is dropped. */
export async function readChat(
  api: Pick<ConversationApi, "session" | "messages">,
  sessionId: string,
  signal?: AbortSignal,
): Promise<WholeChat> {
  const session = await api.session(sessionId, signal);
  const messages: Message[] = [];
  let token = "";
  do {
    const query = { page_size: PAGE_SIZE, ...(token && { page_token: token }) };
    const page = await api.messages(sessionId, query, signal);
    messages.push(...page.messages);
    token = page.next_page_token;
  } while (token !== "");
  return { session, messages };
}
