import type { Message } from "@/lib/api/types";

/**
 * The loaded part of a session: a range of orders without holes, messages of all branches. Never changed in place.
 *
 * Which messages are shown follows from `leafId` alone: those that lead to it, by `parent_id`. A message's parent has
 * a smaller order, so every ancestor that the range can hold is loaded.
 */
export type MessageWindow = {
  /** By rising order. */
  messages: readonly Message[];
  byId: ReadonlyMap<string, Message>;
  /** Children that are loaded, by their parent's id ("" for a session's first messages), orders rising. */
  children: ReadonlyMap<string, readonly Message[]>;
  /** The last message of the branch that is shown; null when nothing is. */
  leafId: string | null;
  hasEarlier: boolean;
  hasLater: boolean;
};

export const EMPTY_WINDOW: MessageWindow = {
  messages: [],
  byId: new Map(),
  children: new Map(),
  leafId: null,
  hasEarlier: false,
  hasLater: false,
};

type Edges = { hasEarlier: boolean; hasLater: boolean };

/** Returns the window of a range's messages (orders may come mixed). The newest active one is the leaf. */
export function windowOf(messages: Iterable<Message>, edges: Edges): MessageWindow {
  return build([...messages], edges, undefined);
}

/** Returns the window with a page of earlier messages before it. */
export function withEarlier(window: MessageWindow, page: readonly Message[], hasEarlier: boolean): MessageWindow {
  const known = page.filter((message) => !window.byId.has(message.id));
  return build([...known, ...window.messages], { hasEarlier, hasLater: window.hasLater }, window.leafId ?? undefined);
}

/** Returns the window with a page of later messages behind it, which may lengthen the branch. */
export function withLater(window: MessageWindow, page: readonly Message[], hasLater: boolean): MessageWindow {
  const known = page.filter((message) => !window.byId.has(message.id));
  const leafId = newestActive(known)?.id ?? window.leafId ?? undefined;
  return build([...window.messages, ...known], { hasEarlier: window.hasEarlier, hasLater }, leafId);
}

/**
 * Returns the window after the newest messages were loaded again. Messages that are known keep their identity; when
 * the pages do not reach the loaded range, they take its place.
 */
export function withNewest(window: MessageWindow, newest: readonly Message[], hasEarlier: boolean): MessageWindow {
  const lowest = Math.min(...newest.map((message) => message.order));
  const fresh = newest.map((message) => sameOr(window.byId.get(message.id), message));
  const touches = newest.length > 0 && highestOrder(window) >= lowest - 1 && lowestOrder(window) <= lowest;
  if (!touches || window.hasLater) return windowOf(fresh, { hasEarlier, hasLater: false });
  const before = window.messages.filter((message) => message.order < lowest);
  const leafId = newestActive(fresh)?.id ?? window.leafId ?? undefined;
  const edges = { hasEarlier: before.length > 0 ? window.hasEarlier : hasEarlier, hasLater: false };
  return build([...before, ...fresh], edges, leafId);
}

/**
 * Returns the window with a message that was just stored, which becomes the leaf; null when messages between are not
 * loaded, so that they must be loaded first.
 */
export function withStored(window: MessageWindow, message: Message): MessageWindow | null {
  if (window.byId.has(message.id)) return withLeaf(window, message.id);
  if (window.hasLater || message.order !== highestOrder(window) + 1) return null;
  return build([...window.messages, message], window, message.id);
}

/** Returns the window that shows the branch which ends with a message. */
export function withLeaf(window: MessageWindow, leafId: string | null): MessageWindow {
  return window.leafId === leafId ? window : { ...window, leafId };
}

/** Returns the window after a branch was selected as the server does it: from the message on, the newest at each fork. */
export function withBranch(window: MessageWindow, messageId: string): MessageWindow {
  let leaf = messageId;
  for (;;) {
    const next = window.children.get(leaf)?.at(-1);
    if (next === undefined) return withLeaf(window, leaf);
    leaf = next.id;
  }
}

/** Returns the loaded messages of the branch that is shown, first to last. */
export function activePath(window: MessageWindow): Message[] {
  const path: Message[] = [];
  let message = window.leafId === null ? undefined : window.byId.get(window.leafId);
  while (message !== undefined) {
    path.push(message);
    message = window.byId.get(message.parent_id);
  }
  return path.reverse();
}

/** A message among those that answer, or take the place of, each other. */
export type Alternatives = { ids: readonly string[]; index: number };

/** Returns a message's alternatives; null when it has none, or when not all of them are loaded. */
export function alternativesOf(window: MessageWindow, message: Message): Alternatives | null {
  const isRoot = message.parent_id === "";
  if (isRoot ? window.hasEarlier : !window.byId.has(message.parent_id)) return null;
  const siblings = window.children.get(message.parent_id) ?? [];
  if (siblings.length < 2) return null;
  const ids = siblings.map((sibling) => sibling.id);
  return { ids, index: ids.indexOf(message.id) };
}

/** The greatest order that is loaded; 0 when nothing is. */
export function highestOrder(window: MessageWindow): number {
  return window.messages.at(-1)?.order ?? 0;
}

/** The smallest order that is loaded; 0 when nothing is. */
export function lowestOrder(window: MessageWindow): number {
  return window.messages[0]?.order ?? 0;
}

function build(messages: Message[], edges: Edges, leafId: string | undefined): MessageWindow {
  const byId = new Map<string, Message>();
  for (const message of messages) byId.set(message.id, message);
  const sorted = [...byId.values()].sort((a, b) => a.order - b.order);
  const children = new Map<string, Message[]>();
  for (const message of sorted) {
    const siblings = children.get(message.parent_id);
    if (siblings === undefined) children.set(message.parent_id, [message]);
    else siblings.push(message);
  }
  return {
    messages: sorted,
    byId,
    children,
    leafId: leafId ?? newestActive(sorted)?.id ?? null,
    hasEarlier: edges.hasEarlier,
    hasLater: edges.hasLater,
  };
}

function newestActive(messages: readonly Message[]): Message | undefined {
  let found: Message | undefined;
  for (const message of messages) {
    if (message.is_active && (found === undefined || message.order > found.order)) found = message;
  }
  return found;
}

/** A stored message never changes but for its place on the active branch; a known one keeps its identity, for memo. */
function sameOr(known: Message | undefined, fresh: Message): Message {
  return known !== undefined && known.is_active === fresh.is_active ? known : fresh;
}
