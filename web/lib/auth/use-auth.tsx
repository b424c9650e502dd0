"use client";

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useEffect, useRef, useSyncExternalStore } from "react";
import { api, unwrap } from "@/lib/api/client";
import { ApiError } from "@/lib/api/errors";
import type { User } from "@/lib/api/types";
import { readPreferences, setNotificationPreferences } from "@/lib/notifications";
import { paths } from "@/lib/paths";
import { readSession, type StoredSession, subscribe, wasSignedInByThisPage } from "./store";
import { endSignIn, keepSessionFresh } from "./tokens";

export type Auth = {
  /** Loading only while the page has not read what is stored. */
  status: "loading" | "signed-in" | "signed-out";
  userId: string | null;
  email: string | null;
};

/** Key of the person's account in the cache. */
export const ME_KEY = ["me"] as const;

/** Who is signed in, in any tab of this browser. */
export function useAuth(): Auth {
  const session = useStoredSession();
  if (session === undefined) return { status: "loading", userId: null, email: null };
  if (session === null) return { status: "signed-out", userId: null, email: null };
  return { status: "signed-in", userId: session.userId, email: session.email };
}

/** The person's account. */
export function useMe() {
  const { status } = useAuth();
  return useQuery({ queryKey: ME_KEY, queryFn: fetchMe, enabled: status === "signed-in" });
}

/** Keeps the sign-in fresh, and what one person has loaded from the eyes of the next. */
export function AuthProvider({ children }: { children: ReactNode }) {
  const queryClient = useQueryClient();
  const userId = useStoredSession()?.userId ?? null;
  const lastUserId = useRef<string | null>(null);

  const { data: me } = useMe();

  useEffect(() => keepSessionFresh(), []);

  useEffect(() => {
    setNotificationPreferences(me ? readPreferences(me.settings?.notification_preferences) : null);
  }, [me]);

  useEffect(() => {
    const last = lastUserId.current;
    if (last !== null && last !== userId) {
      void queryClient.cancelQueries();
      queryClient.clear();
      // Somebody else has signed in elsewhere in this browser: this page, and all it holds, was not theirs.
      if (userId !== null && !wasSignedInByThisPage(userId)) window.location.replace(paths.home);
    }
    lastUserId.current = userId;
  }, [userId, queryClient]);

  return children;
}

function useStoredSession(): StoredSession | null | undefined {
  return useSyncExternalStore<StoredSession | null | undefined>(subscribe, readSession, () => undefined);
}

async function fetchMe(): Promise<User> {
  const session = readSession();
  try {
    return await unwrap(api.GET("/auth/me"));
  } catch (error) {
    // The account is gone, so its sign-in leads nowhere.
    if (error instanceof ApiError && error.reason === "ACCOUNT_NOT_FOUND" && session) endSignIn(session.accessToken);
    throw error;
  }
}
