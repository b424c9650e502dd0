import { useInfiniteQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import { api, unwrap } from "@/lib/api/client";
import type { MessageHit } from "@/lib/api/types";

const PAGE_SIZE = 20;
/** The longest query that the gateway takes, in code points. */
export const LONGEST_QUERY = 200;

/** The person's messages with all words of a query, best match first. An empty query finds nothing and asks for nothing. */
export function useSearch(query: string, sessionId: string | null) {
  const words = Array.from(query).slice(0, LONGEST_QUERY).join("");
  const result = useInfiniteQuery({
    queryKey: ["search", { query: words, sessionId }],
    queryFn: ({ pageParam, signal }) =>
      unwrap(
        api.GET("/messages/search", {
          params: {
            query: {
              query: words,
              page_size: PAGE_SIZE,
              ...(pageParam ? { page_token: pageParam } : {}),
              ...(sessionId ? { session_id: sessionId } : {}),
            },
          },
          signal,
        }),
      ),
    initialPageParam: "",
    getNextPageParam: (page) => page.next_page_token || undefined,
    enabled: words !== "",
    // What was found stays until it is known what the longer word finds.
    placeholderData: (previous, before) => {
      const key = before?.queryKey[1];
      return typeof key === "object" && key.sessionId === sessionId && words !== "" ? previous : undefined;
    },
  });
  const pages = result.data?.pages;
  const hits = useMemo(() => {
    const found = new Map<string, MessageHit>();
    // A message that was written between two pages' answers moves others to the next page, where they are met again.
    for (const hit of pages?.flatMap((page) => page.hits) ?? [])
      if (!found.has(hit.message_id)) found.set(hit.message_id, hit);
    return [...found.values()];
  }, [pages]);
  return { ...result, hits, isPartial: pages?.some((page) => page.is_partial) ?? false };
}
