"use client";

import { useEffect } from "react";
import { Skeleton } from "@/components/ui/skeleton";
import { TextLink } from "@/components/ui/text-link";
import { useAuth } from "@/lib/auth/use-auth";
import { paths } from "@/lib/paths";
import { AccountFooter } from "../account-frame";
import { sentences } from "../sentences";
import { linkFailure } from "./link-failure";
import { useLeaveToChat } from "./use-leave-to-chat";

/** Why a link did not work, and where to go from there. */
export function LinkFailure({ sentence }: { sentence: string }) {
  return (
    <>
      <p role="alert" className="rounded-xl border border-danger-line bg-danger-soft p-3 text-sm">
        {sentence}
      </p>
      <WaysOn />
    </>
  );
}

/** A link that came back with an error. Whoever is signed in has nothing to do with one that is only used up. */
export function LinkError({ code }: { code: string }) {
  const { status } = useAuth();
  const leaveToChat = useLeaveToChat();
  const leaves = status === "signed-in" && code === "otp_expired";
  useEffect(() => {
    if (leaves) leaveToChat();
  }, [leaves, leaveToChat]);
  if (status === "loading" || leaves) return <Skeleton className="h-9 w-full" />;
  return <LinkFailure sentence={linkFailure(code)} />;
}

/** One of the two addresses of a change has agreed. */
export function HalfDone() {
  return (
    <p role="status" className="rounded-xl bg-well p-3 text-sm">
      {sentences.oneTime.half}
    </p>
  );
}

/** Where to go when a page of signing in has nothing to offer. */
export function WaysOn() {
  return (
    <AccountFooter>
      <TextLink href={paths.logIn}>{sentences.links.logIn}</TextLink> ·{" "}
      <TextLink href={paths.signUp}>{sentences.links.signUp}</TextLink> ·{" "}
      <TextLink href={paths.forgotPassword}>{sentences.links.forgotPassword}</TextLink> ·{" "}
      <TextLink href={paths.confirm()}>{sentences.links.enterCode}</TextLink>
    </AccountFooter>
  );
}
