"use client";

import { useRouter, useSearchParams } from "next/navigation";
import { useCallback } from "react";
import type { OtpType } from "@/lib/api/types";
import { safeReturnPath } from "@/lib/paths";
import { AccountFrame } from "./account-frame";
import { pathAfter } from "./confirm";
import { LinkFailure } from "./links/link-failure-notice";
import { LinkOutcome, titleOf } from "./links/link-outcome";
import { useLink } from "./links/use-link";
import { sentences } from "./sentences";

/** Where mail links and sign-ins with a provider end: what they bring along becomes the sign-in of this browser. */
export function Callback() {
  const router = useRouter();
  const link = useLink();
  const next = safeReturnPath(useSearchParams().get("next"));
  const onSignedIn = useCallback((type: OtpType | null) => router.replace(pathAfter(type) ?? next), [router, next]);
  return (
    <AccountFrame title={titleOf(link, sentences.titles.callback)}>
      <LinkOutcome link={link} onSignedIn={onSignedIn}>
        <LinkFailure sentence={sentences.callback.noLink} />
      </LinkOutcome>
    </AccountFrame>
  );
}
