"use client";

import dynamic from "next/dynamic";
import { useRouter } from "next/navigation";
import { type ReactNode, useEffect, useRef, useState } from "react";
import { prepareMenus } from "@/components/ui/dropdown-menu";
import { useSessionAnnouncements } from "@/features/sessions/data/queries";
import { useOpen } from "@/features/sessions/use-open-chat";
import { useAccountTheme } from "@/features/settings/theme/use-theme-setting";
import { logInAddress } from "@/lib/auth/session";
import { useAuth } from "@/lib/auth/use-auth";
import { paths } from "@/lib/paths";
import { useShortcut } from "@/lib/shortcuts";
import { MobileBar } from "./mobile-bar";
import { sentences } from "./sentences";
import { ShellSkeleton } from "./shell-skeleton";
import { Sidebar } from "./sidebar";
import { useMediaQuery } from "./use-media-query";

const loadPalette = () => import("./overlays/command-palette");
const loadShortcuts = () => import("./overlays/shortcuts-dialog");
const CommandPalette = dynamic(loadPalette, { ssr: false });
const ShortcutsDialog = dynamic(loadShortcuts, { ssr: false });

/** What surrounds every page of somebody who is signed in; others are sent to the log-in and come back. */
export function AppShell({ children }: { children: ReactNode }) {
  const { status } = useAuth();
  const router = useRouter();
  const wasSignedIn = useRef(false);
  useEffect(() => {
    if (status === "signed-in") wasSignedIn.current = true;
    if (status !== "signed-out") return;
    const { pathname, search } = window.location;
    // Who has just logged out here begins anew; who comes by a link wants to get there.
    router.replace(
      wasSignedIn.current ? logInAddress() : `${paths.logIn}?next=${encodeURIComponent(pathname + search)}`,
    );
  }, [status, router]);
  if (status !== "signed-in") return <ShellSkeleton />;
  return <SignedInShell>{children}</SignedInShell>;
}

/** How long after its start a page loads what it may need later. */
const REST_MS = 4000;

/** Loads what was left out of the first load once the page has come to rest, so that it is there without the network. */
function useWarmUp() {
  useEffect(() => {
    const timer = setTimeout(() => {
      prepareMenus();
      for (const load of [loadPalette, loadShortcuts]) load().catch(() => undefined);
    }, REST_MS);
    return () => clearTimeout(timer);
  }, []);
}

type Overlay = "palette" | "shortcuts" | null;

function SignedInShell({ children }: { children: ReactNode }) {
  const [overlay, setOverlay] = useState<Overlay>(null);
  const [wasOpened, setWasOpened] = useState<ReadonlySet<Overlay>>(new Set());
  const isWide = useMediaQuery("(min-width: 48rem)");
  const router = useRouter();
  const open = useOpen();
  useSessionAnnouncements();
  useAccountTheme();
  useWarmUp();

  function show(next: Overlay) {
    setOverlay(next);
    setWasOpened((before) => (before.has(next) ? before : new Set(before).add(next)));
  }
  const showShortcuts = () => show("shortcuts");

  useShortcut("palette", () => (overlay === "palette" ? setOverlay(null) : show("palette")));
  useShortcut("help", showShortcuts);
  useShortcut("newChat", () => open(paths.newChat));
  useShortcut("search", () => router.push(paths.search()));

  return (
    <div className="flex h-dvh flex-col bg-desk md:flex-row print:block print:h-auto print:bg-transparent">
      <a
        href="#content"
        className="sr-only z-50 rounded-lg bg-pine px-4 py-2 text-sm font-medium text-pine-ink focus:not-sr-only focus:fixed focus:top-2 focus:start-2"
      >
        {sentences.skipToContent}
      </a>
      {isWide ? (
        <aside className="flex w-66 shrink-0 flex-col text-ink print:hidden">
          <Sidebar onShowShortcuts={showShortcuts} />
        </aside>
      ) : (
        <MobileBar onShowShortcuts={showShortcuts} />
      )}
      <main
        id="content"
        tabIndex={-1}
        data-scroll-root
        className="relative min-h-0 min-w-0 flex-1 overflow-y-auto overscroll-contain bg-sheet md:my-2 md:me-2 md:rounded-xl md:shadow-1 print:m-0 print:overflow-visible print:shadow-none"
      >
        {children}
      </main>
      {wasOpened.has("palette") ? (
        <CommandPalette
          open={overlay === "palette"}
          onOpenChange={(isOpen) => setOverlay(isOpen ? "palette" : null)}
          onShowShortcuts={showShortcuts}
        />
      ) : null}
      {wasOpened.has("shortcuts") ? (
        <ShortcutsDialog
          open={overlay === "shortcuts"}
          onOpenChange={(isOpen) => setOverlay(isOpen ? "shortcuts" : null)}
        />
      ) : null}
    </div>
  );
}
