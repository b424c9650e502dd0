"use client";

import { Keyboard, LogOut, Settings } from "lucide-react";
import { useRouter } from "next/navigation";
import { Avatar } from "@/components/ui/avatar";
import {
  DropdownMenu,
  DropdownMenuContent,
  DropdownMenuItem,
  DropdownMenuLabel,
  DropdownMenuRadioGroup,
  DropdownMenuRadioItem,
  DropdownMenuSeparator,
  DropdownMenuTrigger,
} from "@/components/ui/dropdown-menu";
import { Skeleton } from "@/components/ui/skeleton";
import { useLogOut } from "@/features/account/use-log-out";
import { THEMES } from "@/features/settings/theme/themes";
import { useThemeSetting } from "@/features/settings/theme/use-theme-setting";
import type { Theme, User } from "@/lib/api/types";
import { useAuth, useMe } from "@/lib/auth/use-auth";
import { paths } from "@/lib/paths";
import { Kbd } from "./overlays/kbd";
import { sentences } from "./sentences";

/** The status that somebody has set, while it lasts. */
function statusOf(user: User | undefined): string {
  const profile = user?.profile;
  if (!profile) return "";
  if (profile.status_expires_at && Date.parse(profile.status_expires_at) <= Date.now()) return "";
  return `${profile.status_emoji} ${profile.status_text}`.trim();
}

/** Who is signed in, and what concerns the account. */
export function AccountMenu({ onNavigate, onShowShortcuts }: { onNavigate?: () => void; onShowShortcuts: () => void }) {
  const { email } = useAuth();
  const me = useMe();
  const router = useRouter();
  const logOut = useLogOut();
  const { theme, setTheme } = useThemeSetting();
  const name = me.data?.display_name || email || "";
  const status = statusOf(me.data);

  return (
    <div className="relative flex items-center gap-2 rounded-md p-1 hover:bg-desk-hover">
      <DropdownMenu modal={false}>
        {/* The button covers the whole row; the name beside it is text of its own. */}
        <DropdownMenuTrigger
          aria-label={sentences.account.menu}
          className="rounded-full after:absolute after:inset-0 after:rounded-md after:content-['']"
        >
          {me.isPending ? (
            <Skeleton className="size-8 rounded-full" />
          ) : (
            <Avatar name={name} src={me.data?.profile?.avatar_url ?? null} />
          )}
        </DropdownMenuTrigger>
        <DropdownMenuContent align="start" side="top" className="w-60">
          <DropdownMenuLabel className="break-words">{email}</DropdownMenuLabel>
          <DropdownMenuSeparator />
          <DropdownMenuItem
            onSelect={() => {
              onNavigate?.();
              router.push(paths.settings());
            }}
          >
            <Settings aria-hidden />
            {sentences.account.settings}
          </DropdownMenuItem>
          <DropdownMenuItem onSelect={onShowShortcuts} aria-keyshortcuts="?">
            <Keyboard aria-hidden />
            {sentences.account.shortcuts}
            <Kbd aria-hidden className="ms-auto">
              ?
            </Kbd>
          </DropdownMenuItem>
          <DropdownMenuSeparator />
          <DropdownMenuLabel id="account-menu-theme">{sentences.account.theme}</DropdownMenuLabel>
          <DropdownMenuRadioGroup
            aria-labelledby="account-menu-theme"
            value={theme}
            onValueChange={(value) => setTheme(value as Theme)}
          >
            {THEMES.map(({ value, label }) => (
              <DropdownMenuRadioItem key={value} value={value} onSelect={(event) => event.preventDefault()}>
                {label}
              </DropdownMenuRadioItem>
            ))}
          </DropdownMenuRadioGroup>
          <DropdownMenuSeparator />
          <DropdownMenuItem onSelect={() => void logOut()}>
            <LogOut aria-hidden />
            {sentences.account.logOut}
          </DropdownMenuItem>
        </DropdownMenuContent>
      </DropdownMenu>
      <div className="min-w-0 flex-1 text-sm leading-tight">
        <p className="truncate font-medium">{name}</p>
        {status ? <p className="truncate text-xs text-ink-2">{status}</p> : null}
      </div>
    </div>
  );
}
