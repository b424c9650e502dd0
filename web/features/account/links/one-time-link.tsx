"use client";

import { useRouter } from "next/navigation";
import { useCallback, useEffect, useState } from "react";
import { Button } from "@/components/ui/button";
import { ErrorNotice } from "@/components/ui/error-notice";
import { RichText } from "@/components/ui/rich-text";
import { Skeleton } from "@/components/ui/skeleton";
import { anonymousApi, unwrap } from "@/lib/api/client";
import { ApiError } from "@/lib/api/errors";
import type { OtpType } from "@/lib/api/types";
import type { LinkResult } from "@/lib/auth/link-result";
import { useAuth } from "@/lib/auth/use-auth";
import { paths } from "@/lib/paths";
import { sentences } from "../sentences";
import { Adoption, type Consent, type Tokens } from "./adoption";
import { hasAskedForMail, isSameAddress, isSpent, noteSpent } from "./begun";
import { HalfDone, LinkFailure } from "./link-failure-notice";
import { Question } from "./question";
import { useLeaveToChat } from "./use-leave-to-chat";

type OneTime = Extract<LinkResult, { kind: "one-time" }>;
type State =
  | { kind: "waits" }
  | { kind: "redeeming" }
  | { kind: "redeemed"; tokens: Tokens; consent: Consent }
  | { kind: "half" }
  | { kind: "used" }
  | { kind: "failed"; error: unknown };

// Whoever has the account open has nothing left to do with such a link.
const ONLY_SIGNS_IN: ReadonlySet<OtpType> = new Set<OtpType>(["signup", "magiclink", "invite", "email"]);

type OneTimeLinkProps = { link: OneTime; onSignedIn: (type: OtpType) => void };

/**
 * The page behind a mail's link. It does what the link is for when its button is pressed and not before: programs that
 * look for danger open links too, and would use this one up.
 */
export function OneTimeLink({ link, onSignedIn }: OneTimeLinkProps) {
  const { status, email: current } = useAuth();
  const router = useRouter();
  const leaveToChat = useLeaveToChat();
  const [state, setState] = useState<State>({ kind: "waits" });
  const isWaiting = state.kind === "waits";
  const wasUsedHere = isWaiting && isSpent(link.tokenHash);
  const isDoneAlready = wasUsedHere || (ONLY_SIGNS_IN.has(link.type) && isSameAddress(link.email, current));
  const leaves = isWaiting && status === "signed-in" && isDoneAlready;

  useEffect(() => {
    if (leaves) leaveToChat();
  }, [leaves, leaveToChat]);

  const redeem = async () => {
    setState({ kind: "redeeming" });
    try {
      const body = { type: link.type, token_hash: link.tokenHash };
      const { user, session } = await unwrap(anonymousApi.POST("/auth/verify", { body }));
      noteSpent(link.tokenHash);
      if (!session) {
        setState({ kind: "half" });
        return;
      }
      const tokens = { accessToken: session.access_token, refreshToken: session.refresh_token };
      setState({ kind: "redeemed", tokens, consent: consentTo(user?.email, link) });
    } catch (error) {
      if (!(error instanceof ApiError && error.reason === "OTP_INVALID")) setState({ kind: "failed", error });
      else if (status === "signed-in") leaveToChat();
      else setState({ kind: "used" });
    }
  };

  const onAdopted = useCallback(() => {
    noteSpent(link.tokenHash); // once more: what another person left in this browser may have been removed meanwhile
    onSignedIn(link.type);
  }, [link, onSignedIn]);

  if (status === "loading" || leaves) return <Skeleton className="h-9 w-full" />;
  if (state.kind === "redeemed") {
    return <Adoption tokens={state.tokens} consent={state.consent} onSignedIn={onAdopted} />;
  }
  if (state.kind === "half") return <HalfDone />;
  if (state.kind === "used" || wasUsedHere) return <LinkFailure sentence={sentences.oneTime.used[link.type]} />;
  if (state.kind === "failed") return <ErrorNotice error={state.error} onRetry={() => void redeem()} />;

  const linked = link.email ?? sentences.callback.unnamedAccount;
  const isUnderWay = state.kind === "redeeming";
  const isOthers = status === "signed-in" && !isSameAddress(link.email, current) && link.type !== "email_change";
  if (isOthers) {
    return (
      <Question
        current={current ?? sentences.callback.unnamedAccount}
        linked={linked}
        isUnderWay={isUnderWay}
        onContinue={() => void redeem()}
        onStay={() => router.replace(paths.home)}
      />
    );
  }
  return (
    <>
      <p className="text-sm">
        <RichText
          sentence={sentences.oneTime.intro[link.type]}
          parts={{ email: <strong className="wrap-anywhere">{linked}</strong> }}
        />
      </p>
      <div>
        <Button loading={isUnderWay} onClick={() => void redeem()}>
          {sentences.oneTime.submit[link.type]}
        </Button>
      </div>
      <p className="text-sm text-ink-2">{sentences.oneTime.notYours}</p>
    </>
  );
}

/** The person has agreed to the account that the link names, which only the server knows to be the one it is for. */
function consentTo(account: string | undefined, link: OneTime): Consent {
  if (isSameAddress(account, link.email)) return link.type === "email_change" ? "expected" : "given";
  return account !== undefined && hasAskedForMail(account) ? "expected" : "unknown";
}
