import type { InfiniteData, QueryClient } from "@tanstack/react-query";
import type { Session } from "@/lib/api/types";
import { announce } from "@/lib/broadcast";

/** Which sessions a list holds. */
export type SessionFilter = { archived: boolean; query: string };

/** One page of the list, as the gateway answers it. */
export type SessionPage = { sessions: Session[]; next_page_token: string };

export type SessionPages = InfiniteData<SessionPage, string>;

export const sessionKeys = {
  /** Of all lists. */
  lists: ["sessions"] as const,
  list: (filter: SessionFilter) => ["sessions", filter] as const,
  /** Of one session. */
  one: (id: string) => ["session", id] as const,
};

/** Names are compared as the server does, ignoring case; composed, so that an umlaut typed in two ways is one letter. */
export function foldName(name: string): string {
  return name.normalize("NFC").toLowerCase();
}

function fits(session: Session, filter: SessionFilter): boolean {
  return session.is_archived === filter.archived && foldName(session.name).includes(foldName(filter.query));
}

// The gateway writes as many decimals as a time has, perhaps none. Without the Z, times can be compared as text, to the
// microsecond.
function instant(time: string | null): string {
  return time?.replace(/Z$/, "") ?? "";
}

/** Newest activity first, as the server lists them. */
export function compareSessions(a: Session, b: Session): number {
  const [left, right] = [instant(a.updated_at), instant(b.updated_at)];
  if (left !== right) return left > right ? -1 : 1;
  return a.id > b.id ? -1 : a.id < b.id ? 1 : 0;
}

/** The pages without the session; the same object when it is not in them. */
export function withoutSession(pages: SessionPages, id: string): SessionPages {
  if (!pages.pages.some((page) => page.sessions.some((session) => session.id === id))) return pages;
  return {
    ...pages,
    pages: pages.pages.map((page) => ({ ...page, sessions: page.sessions.filter((session) => session.id !== id) })),
  };
}

/** The pages with the session at its place, or as they are when its place is on a page that is not loaded yet. */
export function withSession(pages: SessionPages, session: Session): SessionPages {
  const rest = withoutSession(pages, session.id);
  const last = rest.pages.length - 1;
  for (const [index, page] of rest.pages.entries()) {
    const place = page.sessions.findIndex((other) => compareSessions(session, other) < 0);
    const atEnd = index === last && !page.next_page_token;
    if (place < 0 && !atEnd) continue;
    const sessions = page.sessions.toSpliced(place < 0 ? page.sessions.length : place, 0, session);
    return { ...rest, pages: rest.pages.with(index, { ...page, sessions }) };
  }
  return rest;
}

/** Puts a session into every loaded list that it belongs to, at its place, and takes it out of the others. */
export function putSession(queryClient: QueryClient, session: Session): void {
  queryClient.setQueryData(sessionKeys.one(session.id), session);
  for (const query of queryClient.getQueryCache().findAll({ queryKey: sessionKeys.lists })) {
    const filter = query.queryKey[1] as SessionFilter;
    queryClient.setQueryData<SessionPages>(
      query.queryKey,
      (pages) => pages && (fits(session, filter) ? withSession(pages, session) : withoutSession(pages, session.id)),
    );
  }
}

/** Takes a session out of all lists. */
export function dropSession(queryClient: QueryClient, id: string): void {
  queryClient.removeQueries({ queryKey: sessionKeys.one(id) });
  queryClient.setQueriesData<SessionPages>(
    { queryKey: sessionKeys.lists },
    (pages) => pages && withoutSession(pages, id),
  );
}

/** The newest that the cache knows of a session. */
export function cachedSession(queryClient: QueryClient, id: string): Session | undefined {
  const one = queryClient.getQueryData<Session>(sessionKeys.one(id));
  if (one) return one;
  for (const [, pages] of queryClient.getQueriesData<SessionPages>({ queryKey: sessionKeys.lists })) {
    for (const page of pages?.pages ?? []) {
      const found = page.sessions.find((session) => session.id === id);
      if (found) return found;
    }
  }
  return undefined;
}

/** A time after every cached session's, which the server's own will be as well once it has made the change. */
export function nextUpdate(queryClient: QueryClient): string {
  let newest = Date.now();
  for (const [, pages] of queryClient.getQueriesData<SessionPages>({ queryKey: sessionKeys.lists })) {
    const first = pages?.pages[0]?.sessions[0]?.updated_at;
    if (first) newest = Math.max(newest, Date.parse(first) + 1);
  }
  return new Date(newest).toISOString();
}

/**
 * Puts a session as the server answered it into the lists (after its creation or a run: at the top) and tells the other
 * tabs, unless nothing about it is new.
 */
export function upsertSession(queryClient: QueryClient, session: Session): void {
  const before = cachedSession(queryClient, session.id);
  putSession(queryClient, session);
  const isNew = before?.updated_at !== session.updated_at || before.name !== session.name;
  if (isNew) announce({ kind: "sessions-changed" });
}
