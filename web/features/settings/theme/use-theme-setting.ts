"use client";

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useEffect } from "react";
import { toastError } from "@/components/ui/toaster";
import { api, unwrap } from "@/lib/api/client";
import type { Theme, User } from "@/lib/api/types";
import { ME_KEY, useMe } from "@/lib/auth/use-auth";
import { applyTheme, storedTheme, useTheme } from "@/lib/theme";
import { sentences } from "./sentences";

function withTheme(user: User | undefined, theme: Theme): User | undefined {
  return user?.settings ? { ...user, settings: { ...user.settings, theme } } : user;
}

/** The theme, and a change of it that shows at once and is stored in the account; goes back when that fails. */
export function useThemeSetting(): { theme: Theme; setTheme: (theme: Theme) => void } {
  const queryClient = useQueryClient();
  const { theme } = useTheme();
  const { mutate } = useMutation({
    mutationFn: (next: Theme) => unwrap(api.PATCH("/auth/me", { body: { settings: { theme: next } } })),
    onMutate: async (next) => {
      const before = storedTheme();
      applyTheme(next);
      await queryClient.cancelQueries({ queryKey: ME_KEY });
      queryClient.setQueryData<User>(ME_KEY, (user) => withTheme(user, next));
      return before;
    },
    onSuccess: (user) => queryClient.setQueryData<User>(ME_KEY, withTheme(user, storedTheme())),
    onError: (error, next, before) => {
      // A later choice is not taken back with this one.
      if (before && storedTheme() === next) {
        applyTheme(before);
        queryClient.setQueryData<User>(ME_KEY, (user) => withTheme(user, before));
      }
      toastError(error, sentences.saveFailed);
    },
  });
  return { theme, setTheme: mutate };
}

/** Shows the theme that the account has, wherever it was chosen. Mounted once, in the shell. */
export function useAccountTheme(): void {
  const stored = useMe().data?.settings?.theme;
  useEffect(() => {
    if (stored && stored !== storedTheme()) applyTheme(stored);
  }, [stored]);
}
