"use client";

import { useRouter, useSearchParams } from "next/navigation";
import { useCallback, useEffect, useRef, useState } from "react";
import { Button } from "@/components/ui/button";
import { ErrorNotice } from "@/components/ui/error-notice";
import { RichText } from "@/components/ui/rich-text";
import { Skeleton } from "@/components/ui/skeleton";
import { TextLink } from "@/components/ui/text-link";
import type { LinkResult } from "@/lib/auth/link-result";
import { adoptSession } from "@/lib/auth/session";
import { claimsOf, readSession } from "@/lib/auth/store";
import { paths, safeReturnPath } from "@/lib/paths";
import { AccountFooter, AccountFrame } from "./account-frame";
import { linkFailure } from "./link-failure";
import { sentences } from "./sentences";
import { useLink } from "./use-link";

type Tokens = Extract<LinkResult, { kind: "tokens" }>;

/** Where mail links and sign-ins with a provider end: their tokens become the sign-in of this browser. */
export function Callback() {
  const link = useLink();
  return (
    <AccountFrame title={sentences.titles.callback}>
      {link === undefined ? <Skeleton className="h-9 w-full" /> : <Outcome link={link} />}
    </AccountFrame>
  );
}

function Outcome({ link }: { link: LinkResult }) {
  switch (link.kind) {
    case "tokens":
      return <Adoption key={link.accessToken} tokens={link} />;
    case "error":
      return <LinkFailure sentence={linkFailure(link.code)} />;
    case "none":
      return <LinkFailure sentence={sentences.callback.noLink} />;
  }
}

function LinkFailure({ sentence }: { sentence: string }) {
  return (
    <>
      <p role="alert" className="rounded-lg border border-destructive-text/60 bg-card p-3 text-sm">
        {sentence}
      </p>
      <AccountFooter>
        <TextLink href={paths.logIn}>{sentences.links.logIn}</TextLink> ·{" "}
        <TextLink href={paths.signUp}>{sentences.links.signUp}</TextLink> ·{" "}
        <TextLink href={paths.forgotPassword}>{sentences.links.forgotPassword}</TextLink>
      </AccountFooter>
    </>
  );
}

function Adoption({ tokens }: { tokens: Tokens }) {
  const router = useRouter();
  const next = useSearchParams().get("next");
  const [error, setError] = useState<unknown>(null);
  const [other, setOther] = useState<{ current: string; linked: string } | null>(null);
  const begun = useRef(false);

  const adopt = useCallback(async () => {
    setOther(null);
    setError(null);
    try {
      await adoptSession({ access_token: tokens.accessToken, refresh_token: tokens.refreshToken });
      router.replace(tokens.type === "recovery" ? paths.resetPassword : safeReturnPath(next));
    } catch (failure) {
      setError(failure);
    }
  }, [tokens, next, router]);

  useEffect(() => {
    if (begun.current) return;
    begun.current = true;
    const current = readSession();
    const claims = claimsOf(tokens.accessToken);
    // A link can be anybody's: nobody shall write into a stranger's account believing it to be theirs.
    if (current && current.userId !== claims.sub) {
      const { unnamedAccount } = sentences.callback;
      setOther({ current: current.email ?? unnamedAccount, linked: claims.email ?? unnamedAccount });
    } else void adopt();
  }, [tokens, adopt]);

  if (other) {
    return (
      <>
        <p className="text-sm">
          <RichText
            sentence={sentences.callback.otherAccount}
            parts={{
              current: <strong className="break-all">{other.current}</strong>,
              linked: <strong className="break-all">{other.linked}</strong>,
            }}
          />
        </p>
        <div className="flex flex-wrap gap-2">
          <Button onClick={() => void adopt()}>{sentences.callback.continueAs(other.linked)}</Button>
          <Button variant="outline" onClick={() => router.replace(paths.home)}>
            {sentences.callback.stay(other.current)}
          </Button>
        </div>
      </>
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
    <p role="status" className="text-sm text-muted-foreground">
      {sentences.callback.oneMoment}
    </p>
  );
}
