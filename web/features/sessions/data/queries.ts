"use client";

import { keepPreviousData, type QueryClient, useInfiniteQuery, useQuery, useQueryClient } from "@tanstack/react-query";
import { useMemo } from "react";
import { api, unwrap } from "@/lib/api/client";
import { ApiError } from "@/lib/api/errors";
import type { Session } from "@/lib/api/types";
import { useAnnouncements } from "@/lib/broadcast";
import { cachedSession, type SessionFilter, type SessionPage, sessionKeys, upsertSession } from "./cache";
import { usePendingDeletions } from "./deletions";

const PAGE_SIZE = 50;

async function fetchPage(filter: SessionFilter, pageToken: string, signal: AbortSignal): Promise<SessionPage> {
  const page = await fetchOnePage(filter, pageToken, signal);
  // Among thousands of chats a page may hold none that fits, and the list still go on.
  return page.sessions.length === 0 && page.next_page_token ? fetchPage(filter, page.next_page_token, signal) : page;
}

function fetchOnePage(filter: SessionFilter, pageToken: string, signal: AbortSignal): Promise<SessionPage> {
  return unwrap(
    api.GET("/sessions", {
      params: {
        query: {
          page_size: PAGE_SIZE,
          is_archived: filter.archived,
          ...(filter.query ? { query: filter.query } : {}),
          ...(pageToken ? { page_token: pageToken } : {}),
        },
      },
      signal,
    }),
  );
}

/**
 * The caller's sessions, newest activity first; `sessions` holds those of all loaded pages without those that are being
 * deleted.
 */
export function useSessions({ archived = false, query = "" }: Partial<SessionFilter> = {}) {
  const filter = { archived, query: query.trim().normalize("NFC") };
  const result = useInfiniteQuery({
    queryKey: sessionKeys.list(filter),
    queryFn: ({ pageParam, signal }) => fetchPage(filter, pageParam, signal),
    initialPageParam: "",
    getNextPageParam: (page) => page.next_page_token || undefined,
    placeholderData: keepPreviousData,
    staleTime: 30_000,
  });
  const hidden = usePendingDeletions();
  const pages = result.data?.pages;
  const sessions = useMemo(() => {
    const seen = new Set<string>(hidden);
    const list: Session[] = [];
    // A session that moved up between two pages' answers is in both.
    for (const session of pages?.flatMap((page) => page.sessions) ?? []) {
      if (seen.has(session.id)) continue;
      seen.add(session.id);
      list.push(session);
    }
    return list;
  }, [pages, hidden]);
  return { ...result, sessions };
}

function fetchSession(id: string, signal?: AbortSignal): Promise<Session> {
  return unwrap(
    api.GET("/sessions/{session_id}", { params: { path: { session_id: id } }, ...(signal ? { signal } : {}) }),
  );
}

/** One session; what a list knows of it is shown until its own answer is there. */
export function useSession(id: string | null) {
  const queryClient = useQueryClient();
  return useQuery({
    queryKey: sessionKeys.one(id ?? ""),
    queryFn: ({ signal }) => fetchSession(id ?? "", signal),
    enabled: Boolean(id),
    placeholderData: () => (id ? cachedSession(queryClient, id) : undefined),
    staleTime: 30_000,
    retry: (failures, error) => !(error instanceof ApiError && error.code === 404) && failures < 2,
  });
}

/** Reads a session anew and puts it into the lists. */
export async function refreshSession(queryClient: QueryClient, id: string): Promise<Session> {
  const session = await fetchSession(id);
  upsertSession(queryClient, session);
  return session;
}

/**
 * Call when a run has ended: reads the session anew, and again a little later, because the server gives new sessions
 * their name beside the run. What fails is left to the next refetch.
 */
export function settleSession(queryClient: QueryClient, id: string): void {
  const wasNamed = Boolean(cachedSession(queryClient, id)?.name);
  const refresh = () => void refreshSession(queryClient, id).catch(() => undefined);
  refresh();
  if (wasNamed) return;
  for (const wait of [1500, 5000, 12_000]) setTimeout(refresh, wait);
}

/** Keeps the lists in step with what other tabs announce. Mounted once, in the shell. */
export function useSessionAnnouncements(): void {
  const queryClient = useQueryClient();
  useAnnouncements((announcement) => {
    if (announcement.kind === "signed-out") return;
    // A hidden tab asks when it is looked at again (refetchOnWindowFocus), so that fifty tabs are not fifty requests.
    const refetchType = document.hidden ? "none" : "active";
    void queryClient.invalidateQueries({ queryKey: sessionKeys.lists, refetchType });
    if (announcement.kind === "sessions-changed") {
      void queryClient.invalidateQueries({ queryKey: ["session"], refetchType });
    } else {
      void queryClient.invalidateQueries({ queryKey: sessionKeys.one(announcement.sessionId), refetchType });
    }
  });
}
