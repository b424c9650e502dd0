"use client";

import { useRouter } from "next/navigation";
import { useCallback } from "react";
import { toastError } from "@/components/ui/toaster";
import { flushDeletions } from "@/features/sessions/data/delete";
import { sentences } from "@/lib/auth/sentences";
import { signOut } from "@/lib/auth/session";
import { paths } from "@/lib/paths";

/** Ends the sign-in of this browser and goes to the log-in page. */
export function useLogOut(): () => Promise<void> {
  const router = useRouter();
  return useCallback(async () => {
    try {
      // Deletions that could still be undone need the sign-in that ends now.
      await flushDeletions();
      await signOut();
      router.replace(paths.logIn);
    } catch (error) {
      toastError(error, sentences.notEnded);
    }
  }, [router]);
}
