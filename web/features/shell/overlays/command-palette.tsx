"use client";

import { Command } from "cmdk";
import {
  Archive,
  Keyboard,
  LogOut,
  MessageCircle,
  MonitorCog,
  Moon,
  Search,
  Settings,
  SquarePen,
  Sun,
} from "lucide-react";
import { type ComponentType, useState } from "react";
import { useLogOut } from "@/features/account/use-log-out";
import { foldName } from "@/features/sessions/data/cache";
import { useSessions } from "@/features/sessions/data/queries";
import { sessionTitle } from "@/features/sessions/title";
import { useOpen } from "@/features/sessions/use-open-chat";
import { THEMES } from "@/features/settings/theme/themes";
import { useThemeSetting } from "@/features/settings/theme/use-theme-setting";
import type { Theme } from "@/lib/api/types";
import { paths, type SettingsSection } from "@/lib/paths";
import { type ShortcutName, shortcutKeys } from "@/lib/shortcuts";
import { useDebounced } from "@/lib/use-debounced";
import { Dialog, DialogContent, DialogTitle } from "./dialog";
import { Kbd } from "./kbd";
import { sentences } from "./sentences";

type PaletteCommand = {
  label: string;
  icon: ComponentType<{ className?: string }>;
  run: () => void;
  shortcut?: ShortcutName;
};

const { palette } = sentences;
const SECTIONS = Object.keys(sentences.sections) as SettingsSection[];
const THEME_ICONS: Readonly<Record<Theme, PaletteCommand["icon"]>> = { light: Sun, dark: Moon, system: MonitorCog };

type CommandPaletteProps = { open: boolean; onOpenChange: (open: boolean) => void; onShowShortcuts: () => void };

/** Everything by its name: chats, pages, settings. */
export default function CommandPalette({ open, onOpenChange, onShowShortcuts }: CommandPaletteProps) {
  return (
    <Dialog open={open} onOpenChange={onOpenChange}>
      <DialogContent
        closable={false}
        aria-describedby={undefined}
        className="top-[12dvh] max-h-[76dvh] max-w-xl translate-y-0 gap-0 overflow-hidden p-0"
      >
        <DialogTitle className="sr-only">{palette.title}</DialogTitle>
        {/* Mounted anew each time it opens, so it begins empty. */}
        <Palette onDone={() => onOpenChange(false)} onShowShortcuts={onShowShortcuts} />
      </DialogContent>
    </Dialog>
  );
}

function useCommands(typed: string, onShowShortcuts: () => void): PaletteCommand[] {
  const go = useOpen();
  const logOut = useLogOut();
  const { setTheme } = useThemeSetting();
  const text = typed.trim();
  const commands: PaletteCommand[] = [
    { label: palette.newChat, icon: SquarePen, run: () => go(paths.newChat), shortcut: "newChat" },
    { label: palette.search, icon: Search, run: () => go(paths.search()), shortcut: "search" },
    { label: palette.archive, icon: Archive, run: () => go(paths.archive) },
    ...SECTIONS.map((section) => ({
      label: palette.settings(sentences.sections[section]),
      icon: Settings,
      run: () => go(paths.settings(section)),
    })),
    ...THEMES.map(({ value, label }) => ({
      label: palette.theme(label),
      icon: THEME_ICONS[value],
      run: () => setTheme(value),
    })),
    { label: palette.shortcuts, icon: Keyboard, run: onShowShortcuts, shortcut: "help" },
    { label: palette.logOut, icon: LogOut, run: () => void logOut() },
  ];
  if (!text) return commands;
  const fitting = commands.filter(({ label }) => foldName(label).includes(foldName(text)));
  return [...fitting, { label: palette.searchFor(text), icon: Search, run: () => go(paths.search(text)) }];
}

function Palette({ onDone, onShowShortcuts }: { onDone: () => void; onShowShortcuts: () => void }) {
  const [typed, setTyped] = useState("");
  const query = useDebounced(typed, 150);
  const { sessions, isPending, isError } = useSessions({ query });
  // What the server said to fewer letters is still there for a moment; Enter must not open what does not fit.
  const wanted = foldName(typed.trim());
  const chats = sessions.filter((session) => foldName(session.name).includes(wanted)).slice(0, 8);
  const commands = useCommands(typed, onShowShortcuts);
  const go = useOpen();

  function choose(run: () => void) {
    onDone();
    run();
  }

  return (
    <Command shouldFilter={false} loop label={palette.label} className="flex max-h-[76dvh] flex-col">
      <Command.Input
        dir="auto"
        value={typed}
        onValueChange={setTyped}
        placeholder={palette.placeholder}
        className="h-12 w-full shrink-0 border-b bg-transparent px-4 text-base outline-none placeholder:text-ink-2"
      />
      <Command.List className="min-h-0 overflow-y-auto overscroll-contain p-1 pb-2">
        {chats.length > 0 ? (
          <Command.Group heading={palette.chats} className={groupClass}>
            {chats.map((session) => (
              <Command.Item
                key={session.id}
                value={session.id}
                onSelect={() => choose(() => go(paths.chat(session.id)))}
                className={itemClass}
              >
                <MessageCircle className="size-4 shrink-0 text-ink-2" aria-hidden />
                <span dir="auto" className="truncate">
                  {sessionTitle(session)}
                </span>
              </Command.Item>
            ))}
          </Command.Group>
        ) : null}
        {isPending ? (
          <Command.Loading className="px-3 py-2 text-sm text-ink-2">{palette.loading}</Command.Loading>
        ) : null}
        {isError ? <p className="px-3 py-2 text-sm text-danger-text">{palette.loadFailed}</p> : null}
        <Command.Group heading={palette.commands} className={groupClass}>
          {commands.map(({ label, icon: Icon, run, shortcut }) => (
            <Command.Item key={label} value={label} onSelect={() => choose(run)} className={itemClass}>
              <Icon className="size-4 shrink-0 text-ink-2" aria-hidden />
              <span className="truncate">{label}</span>
              {shortcut ? (
                <span className="ms-auto hidden gap-1 sm:flex" aria-hidden>
                  {shortcutKeys(shortcut).map((key) => (
                    <Kbd key={key}>{key}</Kbd>
                  ))}
                </span>
              ) : null}
            </Command.Item>
          ))}
        </Command.Group>
      </Command.List>
    </Command>
  );
}

const groupClass =
  "[&_[cmdk-group-heading]]:px-3 [&_[cmdk-group-heading]]:pt-2 [&_[cmdk-group-heading]]:pb-1 [&_[cmdk-group-heading]]:text-xs [&_[cmdk-group-heading]]:text-ink-2";
const itemClass =
  "flex min-h-9 cursor-default items-center gap-2 rounded-md px-3 text-sm select-none data-[selected=true]:bg-active data-[selected=true]:text-ink";
