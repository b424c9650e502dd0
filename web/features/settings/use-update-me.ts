"use client";

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { api, unwrap } from "@/lib/api/client";
import type { components } from "@/lib/api/schema";
import type { User } from "@/lib/api/types";
import { ME_KEY } from "@/lib/auth/use-auth";

/** Changes of the person's account; what is absent stays. */
export type MeChanges = components["schemas"]["UpdateMeRequest"];

/** The account as it will be when the server agrees. */
export function withChanges(user: User, changes: MeChanges): User {
  const { profile, settings } = changes;
  return {
    ...user,
    display_name: changes.display_name || user.display_name,
    profile:
      user.profile && profile
        ? {
            ...user.profile,
            ...profile,
            // A new status without an end stays.
            status_expires_at:
              profile.status_expires_at ?? (profile.status_text === undefined ? user.profile.status_expires_at : null),
          }
        : user.profile,
    settings: user.settings && settings ? { ...user.settings, ...settings } : user.settings,
  };
}

/** Changes the account: shown at once, taken back when the server refuses. */
export function useUpdateMe() {
  const queryClient = useQueryClient();
  return useMutation({
    mutationFn: (changes: MeChanges) => unwrap(api.PATCH("/auth/me", { body: changes })),
    onMutate: async (changes) => {
      await queryClient.cancelQueries({ queryKey: ME_KEY });
      const before = queryClient.getQueryData<User>(ME_KEY);
      if (before) queryClient.setQueryData<User>(ME_KEY, withChanges(before, changes));
      return before;
    },
    onSuccess: (user) => queryClient.setQueryData<User>(ME_KEY, user),
    onError: (_error, _changes, before) => {
      if (before) queryClient.setQueryData<User>(ME_KEY, before);
      // What else was changed meanwhile must not be lost with it.
      void queryClient.invalidateQueries({ queryKey: ME_KEY });
    },
  });
}
