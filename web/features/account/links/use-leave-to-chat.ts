"use client";

import { useRouter } from "next/navigation";
import { useCallback } from "react";
import { toast } from "@/components/ui/toaster";
import { readSession } from "@/lib/auth/store";
import { paths } from "@/lib/paths";
import { sentences } from "../sentences";

/** Goes to the chats of whoever is signed in, and says that the link has nothing left to do. */
export function useLeaveToChat(): () => void {
  const router = useRouter();
  return useCallback(() => {
    toast(sentences.oneTime.usedWhileSignedIn(readSession()?.email ?? sentences.callback.unnamedAccount));
    router.replace(paths.home);
  }, [router]);
}
