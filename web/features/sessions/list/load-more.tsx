"use client";

import { useEffect, useRef } from "react";
import { ErrorNotice } from "@/components/ui/error-notice";
import { sentences } from "../sentences";
import { ChatRowsSkeleton } from "./chat-rows-skeleton";

type LoadMoreProps = {
  hasMore: boolean;
  isLoading: boolean;
  error: unknown;
  onLoad: () => void;
  /** How much there is already: a page that did not fill the view lets the next one be asked for. */
  loaded: number;
};

/** The end of a list that asks for its next page shortly before it is seen. */
export function LoadMore({ hasMore, isLoading, error, onLoad, loaded }: LoadMoreProps) {
  const end = useRef<HTMLDivElement>(null);
  const load = useRef(onLoad);
  useEffect(() => {
    load.current = onLoad;
  });
  const isWaiting = hasMore && !isLoading && !error;

  // biome-ignore lint/correctness/useExhaustiveDependencies: a new page moves the end, which then is looked at anew.
  useEffect(() => {
    const element = end.current;
    if (!element || !isWaiting) return;
    const observer = new IntersectionObserver(
      (entries) => {
        if (entries.some((entry) => entry.isIntersecting)) load.current();
      },
      { root: element.closest("[data-scroll-root]"), rootMargin: "600px 0px" },
    );
    observer.observe(element);
    return () => observer.disconnect();
  }, [isWaiting, loaded]);

  if (!hasMore) return null;
  return (
    <div ref={end}>
      {error ? (
        <ErrorNotice className="m-2" title={sentences.list.moreFailed} error={error} onRetry={onLoad} />
      ) : (
        <ChatRowsSkeleton rows={3} />
      )}
    </div>
  );
}
