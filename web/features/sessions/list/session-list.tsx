"use client";

import { Archive, MessageCircle, SearchX } from "lucide-react";
import { type KeyboardEvent, useMemo, useRef } from "react";
import { prepareMenus } from "@/components/ui/dropdown-menu";
import { EmptyState } from "@/components/ui/empty-state";
import { ErrorNotice } from "@/components/ui/error-notice";
import { cn } from "@/lib/utils";
import { useSessions } from "../data/queries";
import { groupByDay } from "../days";
import { sentences } from "../sentences";
import { useToday } from "../use-today";
import { ChatRowsSkeleton } from "./chat-rows-skeleton";
import { LoadMore } from "./load-more";
import { SessionRow } from "./session-row";
import { rowLinks, useRowActions } from "./use-row-actions";

type SessionListProps = {
  archived?: boolean;
  /** Only chats whose name contains this. */
  query?: string;
  /** Called when a chat is opened, for instance to close the sheet around the list. */
  onNavigate?: () => void;
  className?: string;
};

/** The chats, grouped by day; loads more while it is scrolled. */
export function SessionList({ archived = false, query = "", onNavigate, className }: SessionListProps) {
  const list = useRef<HTMLDivElement>(null);
  const { sessions, ...result } = useSessions({ archived, query });
  const { actions, renamingId, focusedId, currentId } = useRowActions(list, onNavigate);
  const today = useToday();
  const days = useMemo(() => groupByDay(sessions, today), [sessions, today]);

  const has = (id: string | null) => id !== null && sessions.some((session) => session.id === id);
  const tabStop = has(focusedId) ? focusedId : has(currentId) ? currentId : sessions[0]?.id;

  function keyDown(event: KeyboardEvent) {
    const { target, key } = event;
    if (!(target instanceof HTMLAnchorElement) || event.ctrlKey || event.metaKey || event.altKey) return;
    const links = rowLinks(list.current);
    const place = links.indexOf(target);
    const steps: Record<string, number> = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: links.length - 1 };
    const step = steps[key];
    const session = sessions.find(({ id }) => id === target.dataset.sessionId);
    if (step !== undefined) links[step]?.focus();
    else if (key === "F2" && session) actions.startRename(session.id);
    else if (key === "Delete" && session) actions.remove(session);
    else return;
    event.preventDefault();
  }

  if (result.isPending) {
    return (
      <div aria-busy="true" className={className}>
        <p className="sr-only" role="status">
          {sentences.list.loading}
        </p>
        <ChatRowsSkeleton />
      </div>
    );
  }
  if (result.isError && sessions.length === 0) {
    return (
      <ErrorNotice
        className={cn("m-2", className)}
        title={sentences.list.loadFailed}
        error={result.error}
        onRetry={() => void result.refetch()}
      />
    );
  }
  if (sessions.length === 0 && !result.hasNextPage) {
    return (
      <div role="status">
        <NoSessions archived={archived} query={query} className={className} />
      </div>
    );
  }

  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: the keys belong to the links inside, which bubble up to here.
    <div
      ref={list}
      onKeyDown={keyDown}
      onPointerEnter={prepareMenus}
      aria-busy={result.isPlaceholderData}
      className={cn("grid grid-cols-1 gap-4 pt-1 pb-2", result.isPlaceholderData && "opacity-70", className)}
    >
      {query ? (
        <p role="status" className="sr-only">
          {sentences.list.count(sessions.length, result.hasNextPage)}
        </p>
      ) : null}
      {days.map((day) => (
        <div key={day.key}>
          <h2 className="px-3 pb-1 text-xs font-medium text-ink-2">{day.heading}</h2>
          <ul className="grid grid-cols-1 gap-px">
            {day.sessions.map((session) => (
              <SessionRow
                key={session.id}
                session={session}
                actions={actions}
                isCurrent={session.id === currentId}
                isRenaming={session.id === renamingId}
                isTabStop={session.id === tabStop}
              />
            ))}
          </ul>
        </div>
      ))}
      <LoadMore
        hasMore={result.hasNextPage}
        isLoading={result.isFetchingNextPage}
        error={result.isFetchNextPageError ? result.error : null}
        onLoad={() => void result.fetchNextPage()}
        loaded={sessions.length}
      />
    </div>
  );
}

function NoSessions({ archived, query, className }: { archived: boolean; query: string; className?: string }) {
  if (query.trim()) {
    return (
      <EmptyState className={className} icon={<SearchX />} title={sentences.list.noMatch(query.trim())}>
        {sentences.list.noMatchHint}
      </EmptyState>
    );
  }
  if (archived) {
    return (
      <EmptyState className={className} icon={<Archive />} title={sentences.list.emptyArchive}>
        {sentences.list.emptyArchiveHint}
      </EmptyState>
    );
  }
  return (
    <EmptyState className={className} icon={<MessageCircle />} title={sentences.list.empty}>
      {sentences.list.emptyHint}
    </EmptyState>
  );
}
