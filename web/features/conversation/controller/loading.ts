import type { AnswerUnderWay, Message } from "@/lib/api/types";
import type { ConversationApi } from "../conversation-api";
import {
  activePath,
  highestOrder,
  lowestOrder,
  type MessageWindow,
  windowOf,
  withEarlier,
  withLater,
} from "./message-window";

const FIRST_PAGE = 50;
const NEXT_PAGE = 100;
// A page of all branches may hold few messages of the shown one; fewer than this make no screenful.
const WANTED = 30;

/** Loads the newest messages, backward until enough of them are on the active branch, and the answer under way. */
export async function loadNewest(
  api: ConversationApi,
  sessionId: string,
  signal: AbortSignal,
): Promise<{ messages: Message[]; hasEarlier: boolean; underWay: AnswerUnderWay | null }> {
  const messages: Message[] = [];
  let underWay: AnswerUnderWay | null = null;
  let token = "";
  let active = 0;
  do {
    const page = await api.messages(
      sessionId,
      // A page's token belongs to the query that it came with, the size included.
      {
        from_end: true,
        include_inactive: true,
        page_size: FIRST_PAGE,
        ...(token ? { page_token: token } : { include_answer_under_way: true }),
      },
      signal,
    );
    underWay ??= page.answer_under_way;
    messages.unshift(...page.messages);
    active += page.messages.filter((message) => message.is_active).length;
    token = page.next_page_token;
  } while (token !== "" && active < WANTED);
  return { messages, hasEarlier: token !== "", underWay };
}

/** Loads a stretch of messages on both sides of an order. */
export async function loadAround(
  api: ConversationApi,
  sessionId: string,
  order: number,
  signal: AbortSignal,
): Promise<MessageWindow> {
  const [before, after] = await Promise.all([
    api.messages(
      sessionId,
      { from_end: true, include_inactive: true, page_size: FIRST_PAGE, before_order: order + 1 },
      signal,
    ),
    api.messages(sessionId, { include_inactive: true, page_size: FIRST_PAGE, after_order: order }, signal),
  ]);
  return windowOf([...before.messages, ...after.messages], {
    hasEarlier: before.next_page_token !== "",
    hasLater: after.next_page_token !== "",
  });
}

/** Returns the window with enough earlier messages of the shown branch, or all there are. */
export async function loadEarlier(
  api: ConversationApi,
  sessionId: string,
  window: MessageWindow,
  signal: AbortSignal,
): Promise<MessageWindow> {
  const wanted = activePath(window).length + WANTED;
  let next = window;
  do {
    const page = await api.messages(
      sessionId,
      { from_end: true, include_inactive: true, page_size: NEXT_PAGE, before_order: lowestOrder(next) },
      signal,
    );
    next = withEarlier(next, page.messages, page.next_page_token !== "");
  } while (next.hasEarlier && activePath(next).length < wanted);
  return next;
}

/** Returns the window with the next messages behind it; with `all`, with every one there is. */
export async function loadLater(
  api: ConversationApi,
  sessionId: string,
  window: MessageWindow,
  signal: AbortSignal,
  all = false,
): Promise<MessageWindow> {
  const wanted = activePath(window).length + WANTED;
  let next = window;
  do {
    const page = await api.messages(
      sessionId,
      { include_inactive: true, page_size: NEXT_PAGE, after_order: highestOrder(next) },
      signal,
    );
    next = withLater(next, page.messages, page.next_page_token !== "");
  } while (next.hasLater && (all || activePath(next).length < wanted));
  return next;
}
