"use client";

import { useSearchParams } from "next/navigation";
import { useState } from "react";
import { Button } from "@/components/ui/button";
import { Field } from "@/components/ui/field";
import { Input } from "@/components/ui/input";
import { anonymousApi, unwrap } from "@/lib/api/client";
import { adoptSession } from "@/lib/auth/session";
import { paths, safeReturnPath } from "@/lib/paths";
import { AccountFooter, AccountFrame } from "./account-frame";
import { EmailField } from "./fields/email-field";
import { FormError } from "@/components/ui/form-error";
import { MailHint } from "./fields/mail-hint";
import { PasswordField } from "./fields/password-field";
import { SignedOutOnly, useAddressWithNext } from "./signed-out-only";
import { SocialButtons } from "./fields/social-buttons";
import { TextLink } from "@/components/ui/text-link";
import { emailProblem, PASSWORD_RULE, passwordProblem } from "./fields/field-problems";
import { useSubmit } from "@/lib/use-submit";

export function SignUpForm() {
  const [name, setName] = useState("");
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const [waitsFor, setWaitsFor] = useState<string | null>(null);
  const next = safeReturnPath(useSearchParams().get("next"));
  const withNext = useAddressWithNext();
  const form = useSubmit({
    fields: ["display_name", "email", "password"],
    check: () => ({ email: emailProblem(email), password: passwordProblem(password) }),
    submit: async () => {
      const body = {
        email: email.trim(),
        password,
        redirect_to: window.location.origin + paths.callback,
        ...(name.trim() ? { display_name: name.trim() } : {}),
      };
      const { session } = await unwrap(anonymousApi.POST("/auth/signup", { body }));
      if (session) await adoptSession(session);
      else setWaitsFor(body.email);
    },
  });
  if (waitsFor) return <WaitsForMail email={waitsFor} onBack={() => setWaitsFor(null)} />;
  return (
    <AccountFrame title="Create your account">
      <SignedOutOnly>
        <form className="grid gap-4" onSubmit={form.onSubmit} noValidate>
          <FormError error={form.error} waitSeconds={form.waitSeconds} />
          <Field label="Name" hint="How others see you. You can leave it empty." error={form.fieldErrors.display_name}>
            <Input
              name="name"
              autoComplete="name"
              maxLength={100}
              value={name}
              onChange={(event) => setName(event.currentTarget.value)}
            />
          </Field>
          <EmailField value={email} onChange={setEmail} error={form.fieldErrors.email} />
          <PasswordField
            label="Password"
            autoComplete="new-password"
            value={password}
            onChange={setPassword}
            hint={PASSWORD_RULE}
            error={form.fieldErrors.password}
          />
          <Button type="submit" loading={form.pending} disabled={form.waitSeconds > 0}>
            Sign up
          </Button>
        </form>
        <SocialButtons next={next} />
        <AccountFooter>
          Have an account? <TextLink href={withNext(paths.logIn)}>Log in</TextLink>
        </AccountFooter>
      </SignedOutOnly>
    </AccountFrame>
  );
}

function WaitsForMail({ email, onBack }: { email: string; onBack: () => void }) {
  return (
    <AccountFrame title="Confirm your email">
      <div role="status" className="grid gap-3 text-sm">
        <p>
          We have sent a link to <strong className="break-all">{email}</strong>. Open it to finish your account; you can
          close this page.
        </p>
        <p className="text-muted-foreground">
          Nothing there after a few minutes? Look among unwanted mail, and check the address. If the address has an
          account already, no mail is sent: log in instead.
        </p>
      </div>
      <MailHint />
      <div className="flex flex-wrap items-center gap-3">
        <Button variant="outline" onClick={onBack}>
          Use another address
        </Button>
        <AccountFooter>
          Confirmed? <TextLink href={paths.logIn}>Log in</TextLink>
        </AccountFooter>
      </div>
    </AccountFrame>
  );
}
