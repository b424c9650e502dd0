"use client";

import { type ReactNode, useCallback, useState } from "react";
import { Skeleton } from "@/components/ui/skeleton";
import type { OtpType } from "@/lib/api/types";
import { type LinkResult, otpTypeOf } from "@/lib/auth/link-result";
import { claimsOf } from "@/lib/auth/store";
import { sentences } from "../sentences";
import { Adoption, type Consent } from "./adoption";
import { hasAskedForMail, takeMark } from "./begun";
import { HalfDone, LinkError } from "./link-failure-notice";
import { OneTimeLink } from "./one-time-link";

/** What a page is called whose address brings this along. */
export function titleOf(link: LinkResult | undefined, otherwise: string): string {
  if (link?.kind === "one-time") return sentences.oneTime.titles[link.type];
  return link?.kind === "tokens" ? sentences.titles.callback : otherwise;
}

type LinkOutcomeProps = {
  /** Undefined until the address has been looked at. */
  link: LinkResult | undefined;
  /** Called when the person is signed in, with what the mail was for. */
  onSignedIn: (type: OtpType | null) => void;
  /** What the page shows when its address brings nothing along. */
  children: ReactNode;
};

/** What comes of the link that led to a page. */
export function LinkOutcome({ link, onSignedIn, children }: LinkOutcomeProps) {
  if (link === undefined) return <Skeleton className="h-9 w-full" />;
  switch (link.kind) {
    case "tokens":
      return <LinkedTokens key={link.accessToken} link={link} onSignedIn={onSignedIn} />;
    case "one-time":
      return <OneTimeLink key={link.tokenHash} link={link} onSignedIn={onSignedIn} />;
    case "half":
      return <HalfDone />;
    case "error":
      return <LinkError code={link.code} />;
    case "none":
      return children;
  }
}

type LinkedTokensProps = {
  link: Extract<LinkResult, { kind: "tokens" }>;
  onSignedIn: (type: OtpType | null) => void;
};

function LinkedTokens({ link, onSignedIn }: LinkedTokensProps) {
  // Tokens that lie about their address are none that the server takes.
  const [consent] = useState<Consent>(() =>
    takeMark(link.mark) || hasAskedForMail(claimsOf(link.accessToken).email ?? "") ? "expected" : "unknown",
  );
  const onAdopted = useCallback(() => onSignedIn(otpTypeOf(link.type)), [link, onSignedIn]);
  return <Adoption tokens={link} consent={consent} onSignedIn={onAdopted} />;
}
