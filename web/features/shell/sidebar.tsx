"use client";

import { Archive, Search, SquarePen } from "lucide-react";
import Link from "next/link";
import { usePathname } from "next/navigation";
import { type KeyboardEvent, useRef, useState } from "react";
import { SessionList } from "@/features/sessions/list/session-list";
import { rowLinks } from "@/features/sessions/list/use-row-actions";
import { isPlainClick, useCurrentChatId, useOpen } from "@/features/sessions/use-open-chat";
import { paths } from "@/lib/paths";
import { shortcutKeys } from "@/lib/shortcuts";
import { useDebounced } from "@/lib/use-debounced";
import { cn } from "@/lib/utils";
import { AccountMenu } from "./account-menu";
import { Brand } from "./brand";
import { sentences } from "./sentences";

/** Where one is: the row lies on the desk like a sheet, with the bar at its beginning. */
const CURRENT_ROW = "current-bar bg-sheet font-medium shadow-1 hover:bg-sheet [&_svg]:text-pine-text";

type SidebarProps = {
  onShowShortcuts: () => void;
  /** Called when the person goes somewhere, for instance to close the sheet around it. */
  onNavigate?: () => void;
};

/** The way to everything: a new chat, the chats, the archive, the search, the account. */
export function Sidebar({ onShowShortcuts, onNavigate }: SidebarProps) {
  const [filter, setFilter] = useState("");
  const query = useDebounced(filter);
  const nav = useRef<HTMLElement>(null);
  const pathname = usePathname();
  const currentId = useCurrentChatId();
  const open = useOpen();
  const isNewChat = pathname === paths.newChat && !currentId;

  function filterKeyDown(event: KeyboardEvent<HTMLInputElement>) {
    if (event.key === "ArrowDown") {
      event.preventDefault();
      rowLinks(nav.current)[0]?.focus();
    } else if (event.key === "Escape" && filter) {
      // Only empties the field; a sheet around it stays.
      event.preventDefault();
      event.stopPropagation();
      setFilter("");
    }
  }

  return (
    <nav ref={nav} aria-label={sentences.chats} className="flex min-h-0 flex-1 flex-col">
      <div className="grid grid-cols-1 gap-2 p-3">
        <Brand className="h-9 px-1" />
        <a
          href={paths.newChat}
          aria-current={isNewChat ? "page" : undefined}
          title={sentences.newChatHint(shortcutKeys("newChat").join("+"))}
          onClick={(event) => {
            if (!isPlainClick(event)) return;
            event.preventDefault();
            open(paths.newChat);
            onNavigate?.();
          }}
          className="flex h-9 items-center gap-2 rounded-lg bg-raised px-3 text-sm font-medium shadow-1 hover:bg-hover"
        >
          <SquarePen className="size-4 text-pine-text" aria-hidden />
          {sentences.newChat}
        </a>
        <input
          type="search"
          dir="auto"
          aria-label={sentences.filter}
          data-keeps-escape={filter ? true : undefined}
          placeholder={sentences.filter}
          value={filter}
          maxLength={200}
          autoComplete="off"
          onChange={(event) => setFilter(event.target.value)}
          onKeyDown={filterKeyDown}
          className="h-9 w-full rounded-lg border border-edge bg-raised px-3 text-base placeholder:text-ink-3 md:text-sm"
        />
      </div>
      <div data-scroll-root className="min-h-0 flex-1 overflow-x-hidden overflow-y-auto overscroll-contain px-2">
        <SessionList query={query} {...(onNavigate ? { onNavigate } : {})} />
      </div>
      <div className="grid grid-cols-1 gap-px p-2">
        <SidebarLink href={paths.search()} isCurrent={pathname === paths.search()} onNavigate={onNavigate}>
          <Search aria-hidden />
          {sentences.search}
        </SidebarLink>
        <SidebarLink href={paths.archive} isCurrent={pathname === paths.archive} onNavigate={onNavigate}>
          <Archive aria-hidden />
          {sentences.archive}
        </SidebarLink>
        <AccountMenu onShowShortcuts={onShowShortcuts} {...(onNavigate ? { onNavigate } : {})} />
      </div>
    </nav>
  );
}

function SidebarLink({
  href,
  isCurrent,
  onNavigate,
  children,
}: {
  href: string;
  isCurrent: boolean;
  onNavigate: (() => void) | undefined;
  children: React.ReactNode;
}) {
  return (
    <Link
      href={href}
      aria-current={isCurrent ? "page" : undefined}
      onClick={() => onNavigate?.()}
      className={cn(
        "relative flex h-8 items-center gap-2 rounded-md px-3 text-sm hover:bg-desk-hover pointer-coarse:h-11 [&_svg]:size-4 [&_svg]:text-ink-3",
        isCurrent && CURRENT_ROW,
      )}
    >
      {children}
    </Link>
  );
}
