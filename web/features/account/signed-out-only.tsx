"use client";

import { useRouter, useSearchParams } from "next/navigation";
import { type ReactNode, useEffect } from "react";
import { useAuth } from "@/lib/auth/use-auth";
import { safeReturnPath } from "@/lib/paths";
import { sentences } from "./sentences";

/** Shows its children to whoever is not signed in, and sends on whoever is: before, or by what they do here. */
export function SignedOutOnly({ children }: { children: ReactNode }) {
  const { status } = useAuth();
  const router = useRouter();
  const next = useSearchParams().get("next");
  const isSignedIn = status === "signed-in";
  useEffect(() => {
    if (isSignedIn) router.replace(safeReturnPath(next));
  }, [isSignedIn, next, router]);
  if (isSignedIn) {
    return (
      <p role="status" className="text-sm text-ink-2">
        {sentences.logIn.isSignedIn}
      </p>
    );
  }
  return children;
}

/** Keeps where to go after signing in on the way from one of these pages to another. */
export function useAddressWithNext(): (path: string) => string {
  const next = useSearchParams().get("next");
  return (path) => (next ? `${path}?next=${encodeURIComponent(next)}` : path);
}
