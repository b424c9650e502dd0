"use client";

import { useRouter, useSearchParams } from "next/navigation";
import { useCallback } from "react";
import { RichText } from "@/components/ui/rich-text";
import { TextLink } from "@/components/ui/text-link";
import type { OtpType } from "@/lib/api/types";
import { otpTypeOf } from "@/lib/auth/link-result";
import { paths } from "@/lib/paths";
import { AccountFooter, AccountFrame } from "./account-frame";
import { MailHint } from "./fields/mail-hint";
import { CodeForm } from "./links/code-form";
import { LinkOutcome, titleOf } from "./links/link-outcome";
import { useLink } from "./links/use-link";
import { sentences } from "./sentences";

const KINDS = ["signup", "recovery", "magiclink", "invite", "email_change"] as const satisfies readonly OtpType[];

/** Where the code of a mail is typed in, as the mail says; its link may lead here too. */
export function Confirm() {
  const router = useRouter();
  const link = useLink();
  const type = otpTypeOf(useSearchParams().get("type"));
  const onSignedIn = useCallback((kind: OtpType | null) => router.replace(pathAfter(kind) ?? paths.home), [router]);
  return (
    <AccountFrame title={titleOf(link, sentences.titles.confirm)}>
      <LinkOutcome link={link} onSignedIn={onSignedIn}>
        {type ? (
          <>
            <p className="text-sm">{sentences.code.intro[type]}</p>
            <CodeForm key={type} type={type} onSignedIn={onSignedIn} />
            <MailHint />
            <AccountFooter>
              <RichText
                sentence={sentences.code.none}
                parts={{ another: <TextLink href={whereToAsk(type)}>{sentences.code.askFor[type]}</TextLink> }}
              />
            </AccountFooter>
          </>
        ) : (
          <nav aria-label={sentences.code.whatFor} className="grid gap-3 text-sm">
            <p>{sentences.code.whatFor}</p>
            <ul className="grid gap-2">
              {KINDS.map((kind) => (
                <li key={kind}>
                  <TextLink href={paths.confirm(kind)}>{sentences.code.kinds[kind]}</TextLink>
                </li>
              ))}
            </ul>
          </nav>
        )}
      </LinkOutcome>
    </AccountFrame>
  );
}

/** Where a mail leads when it has signed somebody in: who has no password to speak of chooses one. */
export function pathAfter(type: OtpType | null): string | null {
  return type === "recovery" || type === "invite" ? paths.resetPassword : null;
}

function whereToAsk(type: OtpType): string {
  if (type === "recovery") return paths.forgotPassword;
  return type === "signup" ? paths.signUp : paths.logIn;
}
