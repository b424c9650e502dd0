"use client";

import { useRouter } from "next/navigation";
import { useCallback, useState } from "react";
import { Button } from "@/components/ui/button";
import { FormError } from "@/components/ui/form/form-error";
import { RichText } from "@/components/ui/rich-text";
import { TextLink } from "@/components/ui/text-link";
import { anonymousApi, unwrap } from "@/lib/api/client";
import { paths } from "@/lib/paths";
import { useSubmit } from "@/lib/use-submit";
import { AccountFooter, AccountFrame } from "./account-frame";
import { EmailField } from "./fields/email-field";
import { emailProblem } from "./fields/field-problems";
import { MailHint } from "./fields/mail-hint";
import { noteMailAsked } from "./links/begun";
import { CodeForm } from "./links/code-form";
import { sentences } from "./sentences";

export function ForgotPasswordForm() {
  const router = useRouter();
  const onSignedIn = useCallback(() => router.replace(paths.resetPassword), [router]);
  const [email, setEmail] = useState("");
  const [sentTo, setSentTo] = useState<string | null>(null);
  const form = useSubmit({
    fields: ["email"],
    check: () => ({ email: emailProblem(email) }),
    submit: async () => {
      const body = { email: email.trim(), redirect_to: window.location.origin + paths.resetPassword };
      const asked = await unwrap(anonymousApi.POST("/auth/password/reset", { body }));
      noteMailAsked(asked.email);
      setSentTo(body.email);
    },
  });
  return (
    <AccountFrame title={sentences.titles.forgotPassword}>
      {sentTo ? (
        <>
          <div role="status" className="grid gap-3 text-sm">
            <p>
              <RichText
                sentence={sentences.forgotPassword.linkSent}
                parts={{ email: <strong className="wrap-anywhere">{sentTo}</strong> }}
              />
            </p>
          </div>
          <CodeForm type="recovery" email={sentTo} onSignedIn={onSignedIn} />
          <MailHint />
          <div>
            <Button variant="outline" onClick={() => setSentTo(null)}>
              {sentences.useAnotherAddress}
            </Button>
          </div>
        </>
      ) : (
        <form className="grid gap-4" onSubmit={form.onSubmit} noValidate>
          <FormError error={form.error} waitSeconds={form.waitSeconds} />
          <EmailField
            value={email}
            onChange={setEmail}
            hint={sentences.forgotPassword.hint}
            error={form.fieldErrors.email}
          />
          <Button type="submit" loading={form.pending} disabled={form.waitSeconds > 0}>
            {sentences.forgotPassword.submit}
          </Button>
        </form>
      )}
      <AccountFooter>
        <TextLink href={paths.logIn}>{sentences.links.backToLogIn}</TextLink> ·{" "}
        <TextLink href={paths.confirm("recovery")}>{sentences.links.enterCode}</TextLink>
      </AccountFooter>
    </AccountFrame>
  );
}
