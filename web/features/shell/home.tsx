"use client";

import { useRouter } from "next/navigation";
import { useEffect } from "react";
import { readLink } from "@/lib/auth/link-result";
import { useAuth } from "@/lib/auth/use-auth";
import { paths } from "@/lib/paths";
import { ShellSkeleton } from "./shell-skeleton";

/**
 * Sends people on: to their chats, or to the log-in. A mail's link leads here when the page that it names is not on the
 * project's list; what it brings along is for the callback page.
 */
export function Home() {
  const { status } = useAuth();
  const router = useRouter();
  useEffect(() => {
    if (readLink(new URL(window.location.href)).kind !== "none") {
      window.location.replace(paths.callback + window.location.search + window.location.hash);
      return;
    }
    if (status !== "loading") router.replace(status === "signed-in" ? paths.newChat : paths.logIn);
  }, [status, router]);
  return <ShellSkeleton />;
}
