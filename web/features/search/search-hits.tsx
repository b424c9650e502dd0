import type { KeyboardEvent, RefObject } from "react";
import { dayHeading } from "@/features/sessions/days";
import { sessionTitle } from "@/features/sessions/title";
import { isPlainClick, useOpen } from "@/features/sessions/use-open-chat";
import { useToday } from "@/features/sessions/use-today";
import type { MessageHit } from "@/lib/api/types";
import { paths } from "@/lib/paths";
import { Excerpt } from "./excerpt";
import { sentences } from "./sentences";

/** The hit that a key leads to from one of them: another one, the search box (-1), or none. */
function nextPlace(key: string, place: number, count: number): number | null {
  if (key === "ArrowDown") return Math.min(place + 1, count - 1);
  if (key === "ArrowUp") return place - 1;
  if (key === "Home") return 0;
  if (key === "End") return count - 1;
  return null;
}

type SearchHitsProps = {
  hits: readonly MessageHit[];
  list: RefObject<HTMLOListElement | null>;
  onLeave: () => void;
};

/** Messages that were found. The arrow keys go from one to the next, and above the first back to the search box. */
export function SearchHits({ hits, list, onLeave }: SearchHitsProps) {
  const today = useToday();

  function onKeyDown(event: KeyboardEvent): void {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const links = [...(list.current?.querySelectorAll("a") ?? [])];
    const place = links.findIndex((link) => link.matches(":focus"));
    const next = event.key === "Escape" ? -1 : nextPlace(event.key, place, links.length);
    if (place < 0 || next === null) return;
    event.preventDefault();
    if (next < 0) onLeave();
    else links[next]?.focus();
  }

  return (
    <ol ref={list} onKeyDown={onKeyDown} className="-mx-3 grid grid-cols-1">
      {hits.map((hit) => (
        <Hit key={hit.message_id} hit={hit} today={today} />
      ))}
    </ol>
  );
}

function Hit({ hit, today }: { hit: MessageHit; today: Date }) {
  const open = useOpen();
  const href = paths.chat(hit.session_id, { id: hit.message_id, order: hit.order });
  return (
    <li className="relative grid grid-cols-1 gap-1 rounded-lg px-3 py-3 text-ink hover:bg-hover">
      <div className="flex flex-wrap items-baseline justify-between gap-x-4">
        <a
          href={href}
          dir="auto"
          onClick={(event) => {
            if (!isPlainClick(event)) return;
            event.preventDefault();
            open(href);
          }}
          className="min-w-0 truncate font-medium after:absolute after:inset-0 after:rounded-lg focus-visible:outline-none focus-visible:after:outline-2 focus-visible:after:outline-offset-2 focus-visible:after:outline-pine"
        >
          {sessionTitle({ name: hit.session_name })}
        </a>
        <span className="text-[0.8125rem] text-ink-3">
          {sentences.roles[hit.role]}
          {hit.timestamp ? (
            <>
              {" · "}
              <time dateTime={hit.timestamp}>{dayHeading(new Date(hit.timestamp), today)}</time>
            </>
          ) : null}
        </span>
      </div>
      <Excerpt hit={hit} />
    </li>
  );
}
