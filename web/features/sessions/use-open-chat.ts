"use client";

import { usePathname, useRouter, useSearchParams } from "next/navigation";
import { type MouseEvent, useCallback } from "react";
import { paths } from "@/lib/paths";

/** The id of the chat that is open; null elsewhere and in a new chat. */
export function useCurrentChatId(): string | null {
  const pathname = usePathname();
  const id = useSearchParams().get("id");
  return pathname === paths.newChat ? id : null;
}

/** Goes to an address. From chat to chat only the address changes: nothing has to be fetched for the page. */
export function useOpen(): (href: string) => void {
  const pathname = usePathname();
  const router = useRouter();
  return useCallback(
    (href) => {
      if (href === window.location.pathname + window.location.search) return;
      const isChat = (address: string) => address.split("?")[0] === paths.newChat;
      if (isChat(pathname) && isChat(href)) window.history.pushState(null, "", href);
      else router.push(href);
    },
    [pathname, router],
  );
}

/** True for a plain click, which the page handles; others (new tab, new window) are the browser's. */
export function isPlainClick(event: MouseEvent): boolean {
  return event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
}
