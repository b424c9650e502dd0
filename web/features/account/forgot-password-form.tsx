"use client";

import { useState } from "react";
import { Button } from "@/components/ui/button";
import { anonymousApi, unwrap } from "@/lib/api/client";
import { paths } from "@/lib/paths";
import { AccountFooter, AccountFrame } from "./account-frame";
import { EmailField } from "./fields/email-field";
import { FormError } from "@/components/ui/form-error";
import { MailHint } from "./fields/mail-hint";
import { TextLink } from "@/components/ui/text-link";
import { emailProblem } from "./fields/field-problems";
import { useSubmit } from "@/lib/use-submit";

export function ForgotPasswordForm() {
  const [email, setEmail] = useState("");
  const [sentTo, setSentTo] = useState<string | null>(null);
  const form = useSubmit({
    fields: ["email"],
    check: () => ({ email: emailProblem(email) }),
    submit: async () => {
      const body = { email: email.trim(), redirect_to: window.location.origin + paths.resetPassword };
      await unwrap(anonymousApi.POST("/auth/password/reset", { body }));
      setSentTo(body.email);
    },
  });
  return (
    <AccountFrame title="Forgot your password?">
      {sentTo ? (
        <>
          <div role="status" className="grid gap-3 text-sm">
            <p>
              If <strong className="break-all">{sentTo}</strong> has an account, a link is on its way there. Open it to
              choose a new password.
            </p>
          </div>
          <MailHint />
          <div>
            <Button variant="outline" onClick={() => setSentTo(null)}>
              Use another address
            </Button>
          </div>
        </>
      ) : (
        <form className="grid gap-4" onSubmit={form.onSubmit} noValidate>
          <FormError error={form.error} waitSeconds={form.waitSeconds} />
          <EmailField
            value={email}
            onChange={setEmail}
            hint="We send a link with which you choose a new one."
            error={form.fieldErrors.email}
          />
          <Button type="submit" loading={form.pending} disabled={form.waitSeconds > 0}>
            Send link
          </Button>
        </form>
      )}
      <AccountFooter>
        <TextLink href={paths.logIn}>Back to log in</TextLink>
      </AccountFooter>
    </AccountFrame>
  );
}
