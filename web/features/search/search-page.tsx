"use client";

import { Search, SearchX, X } from "lucide-react";
import { type FormEvent, type KeyboardEvent, useEffect, useRef } from "react";
import { Button } from "@/components/ui/button";
import { EmptyState } from "@/components/ui/empty-state";
import { ErrorNotice } from "@/components/ui/error-notice";
import { Input } from "@/components/ui/form/input";
import { useSession } from "@/features/sessions/data/queries";
import { sessionTitle } from "@/features/sessions/title";
import { MoreHits } from "./more-hits";
import { searchAddress, useSearchAddress } from "./search-address";
import { SearchHits } from "./search-hits";
import { HitsSkeleton } from "./search-skeleton";
import { sentences } from "./sentences";
import { LONGEST_QUERY, useSearch } from "./use-search";
import { useSearchText } from "./use-search-text";

/** Searches the person's messages; what for, and in which chat, stands in the page's address. */
export function SearchPage() {
  const { query, sessionId } = useSearchAddress();
  const { text, setText, commitNow } = useSearchText(query, sessionId);
  const search = useSearch(query, sessionId);
  const input = useRef<HTMLInputElement>(null);
  const list = useRef<HTMLOListElement>(null);
  const isEmpty = query === "";

  useEffect(() => {
    // On a touch screen the keyboard would cover half of the page before anything was asked for.
    if (isEmpty && window.matchMedia?.("(pointer: fine)").matches) input.current?.focus();
  }, [isEmpty]);

  function onSubmit(event: FormEvent): void {
    event.preventDefault();
    commitNow();
  }

  function onKeyDown(event: KeyboardEvent): void {
    if (event.nativeEvent.isComposing) return;
    const first = event.key === "ArrowDown" ? list.current?.querySelector("a") : null;
    if (!first) return;
    event.preventDefault();
    first.focus();
  }

  return (
    <div className="mx-auto grid w-full max-w-192 grid-cols-1 gap-4 p-4 md:px-6 md:py-8">
      <h1 className="type-title">{sentences.title}</h1>
      <form onSubmit={onSubmit} className="grid grid-cols-1 gap-3">
        <Input
          ref={input}
          type="search"
          dir="auto"
          aria-label={sentences.searchMessages}
          placeholder={sentences.searchMessages}
          value={text}
          maxLength={LONGEST_QUERY}
          autoComplete="off"
          spellCheck={false}
          enterKeyHint="search"
          onChange={(event) => setText(event.target.value)}
          onKeyDown={onKeyDown}
        />
        {sessionId ? <OneChat sessionId={sessionId} query={text.trim()} /> : null}
      </form>
      <p role="status" className={search.hits.length > 0 && !isEmpty ? "text-sm text-ink-2" : "sr-only"}>
        {isEmpty ? "" : countSentence(search)}
      </p>
      {search.isPartial && !isEmpty ? <p className="text-sm text-ink-2">{sentences.partial}</p> : null}
      <div aria-busy={search.isFetching && !search.isFetchingNextPage} className="grid grid-cols-1 gap-4">
        {isEmpty ? (
          <EmptyState icon={<Search />} title={sentences.begin}>
            {sentences.beginHint}
          </EmptyState>
        ) : search.isPending ? (
          <HitsSkeleton />
        ) : search.isError && search.hits.length === 0 ? (
          <ErrorNotice title={sentences.failed} error={search.error} onRetry={() => void search.refetch()} />
        ) : search.hits.length === 0 ? (
          <NothingFound query={query} sessionId={sessionId} />
        ) : (
          <>
            <SearchHits hits={search.hits} list={list} onLeave={() => input.current?.focus()} />
            {search.hasNextPage && !search.isPlaceholderData ? (
              <MoreHits
                isLoading={search.isFetchingNextPage}
                error={search.isFetchNextPageError ? search.error : null}
                onLoad={() => void search.fetchNextPage()}
                loaded={search.hits.length}
              />
            ) : null}
          </>
        )}
      </div>
    </div>
  );
}

function countSentence({
  hits,
  hasNextPage,
  isPending,
  isError,
  isPlaceholderData,
}: ReturnType<typeof useSearch>): string {
  if (isPending || isPlaceholderData) return sentences.searching;
  if (hits.length === 0) return isError ? "" : sentences.noneFound;
  if (hasNextPage) return sentences.bestMatches(hits.length);
  return sentences.messages(hits.length);
}

/** Goes to another search without loading the page anew. */
function goTo(address: string): void {
  window.history.pushState(null, "", address);
}

/** Says that only one chat is searched, with a way to search all. */
function OneChat({ sessionId, query }: { sessionId: string; query: string }) {
  const { data: session } = useSession(sessionId);
  return (
    <p className="flex flex-wrap items-center gap-2 text-sm">
      <span className="min-w-0 truncate">
        {session ? sentences.onlyIn(sessionTitle(session)) : sentences.onlyInOneChat}
      </span>
      <Button variant="outline" size="sm" onClick={() => goTo(searchAddress(query, null))}>
        <X aria-hidden />
        {sentences.searchAllChats}
      </Button>
    </p>
  );
}

function NothingFound({ query, sessionId }: { query: string; sessionId: string | null }) {
  return (
    <EmptyState icon={<SearchX />} title={<span className="wrap-anywhere">{sentences.nothingWith(query)}</span>}>
      <p>{sentences.nothingHint}</p>
      {sessionId ? <p>{sentences.onlyOneChatSearched}</p> : null}
    </EmptyState>
  );
}
