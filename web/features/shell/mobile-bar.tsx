"use client";

import { Menu, SquarePen } from "lucide-react";
import dynamic from "next/dynamic";
import { useEffect, useRef, useState } from "react";
import { useOpen } from "@/features/sessions/use-open-chat";
import { paths } from "@/lib/paths";
import { Brand } from "./brand";
import { sentences } from "./sentences";

const loadSheet = () => import("./sidebar-sheet");
const SidebarSheet = dynamic(loadSheet, { ssr: false });

/** The bar of narrow screens, whose button opens the sidebar as a sheet. */
export function MobileBar({ onShowShortcuts }: { onShowShortcuts: () => void }) {
  const [isOpen, setIsOpen] = useState(false);
  const [wasOpened, setWasOpened] = useState(false);
  const button = useRef<HTMLButtonElement>(null);
  if (isOpen && !wasOpened) setWasOpened(true);
  const open = useOpen();
  useEffect(() => {
    // Only narrow screens need it, and soon.
    loadSheet().catch(() => undefined);
  }, []);
  return (
    <header className="flex h-12 shrink-0 items-center justify-between px-2 text-ink print:hidden">
      <button
        ref={button}
        type="button"
        aria-label={sentences.openChats}
        aria-haspopup="dialog"
        aria-expanded={isOpen}
        onClick={() => setIsOpen(true)}
        className="inline-flex size-10 items-center justify-center rounded-lg hover:bg-desk-hover"
      >
        <Menu className="size-5" aria-hidden />
      </button>
      {wasOpened ? (
        <SidebarSheet
          open={isOpen}
          onOpenChange={setIsOpen}
          onShowShortcuts={onShowShortcuts}
          onClosed={() => button.current?.focus()}
        />
      ) : null}
      <Brand />
      <button
        type="button"
        aria-label={sentences.newChat}
        onClick={() => open(paths.newChat)}
        className="inline-flex size-10 items-center justify-center rounded-lg hover:bg-desk-hover"
      >
        <SquarePen className="size-5" aria-hidden />
      </button>
    </header>
  );
}
