"use client";

import { useSearchParams } from "next/navigation";
import { useState, useSyncExternalStore } from "react";
import { Button } from "@/components/ui/button";
import { FormError } from "@/components/ui/form/form-error";
import { RichText } from "@/components/ui/rich-text";
import { TextLink } from "@/components/ui/text-link";
import { anonymousApi, unwrap } from "@/lib/api/client";
import { asApiError } from "@/lib/api/errors";
import { adoptSession } from "@/lib/auth/session";
import { leaveReason, subscribe } from "@/lib/auth/store";
import { paths, safeReturnPath } from "@/lib/paths";
import { useSubmit } from "@/lib/use-submit";
import { AccountFooter, AccountFrame } from "./account-frame";
import { EmailField } from "./fields/email-field";
import { emailProblem } from "./fields/field-problems";
import { MailHint } from "./fields/mail-hint";
import { PasswordField } from "./fields/password-field";
import { SocialButtons } from "./fields/social-buttons";
import { sentences } from "./sentences";
import { SignedOutOnly, useAddressWithNext } from "./signed-out-only";

export function LogInForm() {
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const next = safeReturnPath(useSearchParams().get("next"));
  const withNext = useAddressWithNext();
  const form = useSubmit({
    fields: ["email", "password"],
    check: () => ({ email: emailProblem(email), password: password ? undefined : sentences.fields.passwordToEnter }),
    submit: async () => {
      const { session } = await unwrap(anonymousApi.POST("/auth/login", { body: { email: email.trim(), password } }));
      if (!session) throw asApiError(new Error("a sign-in without tokens"));
      await adoptSession(session);
    },
  });
  return (
    <AccountFrame title={sentences.titles.logIn}>
      <SignedOutOnly>
        <EndedNotice />
        <form className="grid gap-4" onSubmit={form.onSubmit} noValidate>
          <FormError error={form.error} waitSeconds={form.waitSeconds} />
          {form.error?.reason === "EMAIL_NOT_CONFIRMED" ? (
            <>
              <p className="text-sm">
                <TextLink href={paths.confirm("signup")}>{sentences.links.enterCode}</TextLink>
              </p>
              <MailHint />
            </>
          ) : null}
          <EmailField value={email} onChange={setEmail} error={form.fieldErrors.email} />
          <PasswordField
            label={sentences.fields.password}
            autoComplete="current-password"
            value={password}
            onChange={setPassword}
            error={form.fieldErrors.password}
            aside={
              <span className="text-sm">
                <TextLink href={paths.forgotPassword}>{sentences.links.forgotPassword}</TextLink>
              </span>
            }
          />
          <Button type="submit" loading={form.pending} disabled={form.waitSeconds > 0}>
            {sentences.logIn.submit}
          </Button>
        </form>
        <SocialButtons next={next} />
        <AccountFooter>
          <RichText
            sentence={sentences.logIn.noAccountYet}
            parts={{ signUp: <TextLink href={withNext(paths.signUp)}>{sentences.links.signUp}</TextLink> }}
          />
        </AccountFooter>
      </SignedOutOnly>
    </AccountFrame>
  );
}

function EndedNotice() {
  const reason = useSyncExternalStore(subscribe, leaveReason, () => null);
  if (reason !== "ended") return null;
  return (
    <p role="status" className="rounded-xl bg-well p-3 text-sm">
      {sentences.logIn.ended}
    </p>
  );
}
