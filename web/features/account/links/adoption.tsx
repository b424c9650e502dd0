"use client";

import { useRouter } from "next/navigation";
import { useCallback, useEffect, useRef, useState } from "react";
import { ErrorNotice } from "@/components/ui/error-notice";
import { TextLink } from "@/components/ui/text-link";
import { adoptSession } from "@/lib/auth/session";
import { claimsOf, readSession } from "@/lib/auth/store";
import { paths } from "@/lib/paths";
import { AccountFooter } from "../account-frame";
import { sentences } from "../sentences";
import { Question } from "./question";

export type Tokens = { accessToken: string; refreshToken: string };

/**
 * Whether the person wants this sign-in: they have said so of this very account (given), this browser has begun it
 * (expected), or nobody knows (unknown).
 */
export type Consent = "given" | "expected" | "unknown";

type AdoptionProps = { tokens: Tokens; consent: Consent; onSignedIn: () => void };

/** Makes tokens the sign-in of this browser; asks where that is not what the person expects. */
export function Adoption({ tokens, consent, onSignedIn }: AdoptionProps) {
  const router = useRouter();
  const [isAsking, setAsking] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const begun = useRef(false);

  const adopt = useCallback(async () => {
    setAsking(false);
    setError(null);
    try {
      await adoptSession({ access_token: tokens.accessToken, refresh_token: tokens.refreshToken });
      onSignedIn();
    } catch (failure) {
      setError(failure);
    }
  }, [tokens, onSignedIn]);

  useEffect(() => {
    if (begun.current) return;
    begun.current = true;
    const current = readSession();
    const isSame = current !== null && current.userId === claimsOf(tokens.accessToken).sub;
    // What was signed in goes on: the link's tokens may be older than it.
    if (isSame && consent === "unknown") onSignedIn();
    else if (consent === "given" || (consent === "expected" && (isSame || current === null))) void adopt();
    else setAsking(true);
  }, [tokens, consent, adopt, onSignedIn]);

  const { unnamedAccount } = sentences.callback;
  if (isAsking) {
    const current = readSession();
    return (
      <Question
        current={current && (current.email ?? unnamedAccount)}
        linked={claimsOf(tokens.accessToken).email ?? unnamedAccount}
        onContinue={() => void adopt()}
        onStay={() => router.replace(current ? paths.home : paths.logIn)}
      />
    );
  }
  if (error) {
    return (
      <>
        <ErrorNotice error={error} onRetry={() => void adopt()} />
        <AccountFooter>
          <TextLink href={paths.logIn}>{sentences.links.backToLogIn}</TextLink>
        </AccountFooter>
      </>
    );
  }
  return (
    <p role="status" className="text-sm text-ink-2">
      {sentences.callback.oneMoment}
    </p>
  );
}
