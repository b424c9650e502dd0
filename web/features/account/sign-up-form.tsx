"use client";

import { useRouter, useSearchParams } from "next/navigation";
import { useCallback, useEffect, useState } from "react";
import { Button } from "@/components/ui/button";
import { Field } from "@/components/ui/form/field";
import { FormError } from "@/components/ui/form/form-error";
import { Input } from "@/components/ui/form/input";
import { RichText } from "@/components/ui/rich-text";
import { TextLink } from "@/components/ui/text-link";
import { anonymousApi, unwrap } from "@/lib/api/client";
import { adoptSession } from "@/lib/auth/session";
import { useAuth } from "@/lib/auth/use-auth";
import { paths, safeReturnPath } from "@/lib/paths";
import { useSubmit } from "@/lib/use-submit";
import { AccountFooter, AccountFrame } from "./account-frame";
import { EmailField } from "./fields/email-field";
import { emailProblem, PASSWORD_RULE, passwordProblem } from "./fields/field-problems";
import { MailHint } from "./fields/mail-hint";
import { PasswordField } from "./fields/password-field";
import { SocialButtons } from "./fields/social-buttons";
import { noteMailAsked } from "./links/begun";
import { CodeForm } from "./links/code-form";
import { sentences } from "./sentences";
import { SignedOutOnly, useAddressWithNext } from "./signed-out-only";

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
      const { session, user } = await unwrap(anonymousApi.POST("/auth/signup", { body }));
      if (session) {
        await adoptSession(session);
        return;
      }
      noteMailAsked(user?.email ?? body.email);
      setWaitsFor(body.email);
    },
  });
  if (waitsFor) return <WaitsForMail email={waitsFor} next={next} onBack={() => setWaitsFor(null)} />;
  return (
    <AccountFrame title={sentences.titles.createAccount}>
      <SignedOutOnly>
        <form className="grid gap-4" onSubmit={form.onSubmit} noValidate>
          <FormError error={form.error} waitSeconds={form.waitSeconds} />
          <Field label={sentences.fields.name} hint={sentences.fields.nameHint} error={form.fieldErrors.display_name}>
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
            label={sentences.fields.password}
            autoComplete="new-password"
            value={password}
            onChange={setPassword}
            hint={PASSWORD_RULE}
            error={form.fieldErrors.password}
          />
          <Button type="submit" loading={form.pending} disabled={form.waitSeconds > 0}>
            {sentences.signUp.submit}
          </Button>
        </form>
        <SocialButtons next={next} />
        <AccountFooter>
          <RichText
            sentence={sentences.signUp.haveAccount}
            parts={{ logIn: <TextLink href={withNext(paths.logIn)}>{sentences.links.logIn}</TextLink> }}
          />
        </AccountFooter>
      </SignedOutOnly>
    </AccountFrame>
  );
}

type WaitsForMailProps = { email: string; next: string; onBack: () => void };

function WaitsForMail({ email, next, onBack }: WaitsForMailProps) {
  const router = useRouter();
  const { status } = useAuth();
  const onSignedIn = useCallback(() => router.replace(next), [router, next]);
  // The link may be opened in another tab.
  useEffect(() => {
    if (status === "signed-in") router.replace(next);
  }, [status, next, router]);
  return (
    <AccountFrame title={sentences.titles.confirmEmail}>
      <div role="status" className="grid gap-3 text-sm">
        <p>
          <RichText
            sentence={sentences.signUp.linkSent}
            parts={{ email: <strong className="wrap-anywhere">{email}</strong> }}
          />
        </p>
      </div>
      <CodeForm type="signup" email={email} onSignedIn={onSignedIn} />
      <p className="text-sm text-ink-2">{sentences.signUp.noMail}</p>
      <MailHint />
      <div className="flex flex-wrap items-center gap-3">
        <Button variant="outline" onClick={onBack}>
          {sentences.useAnotherAddress}
        </Button>
        <AccountFooter>
          <RichText
            sentence={sentences.signUp.confirmed}
            parts={{ logIn: <TextLink href={paths.logIn}>{sentences.links.logIn}</TextLink> }}
          />
        </AccountFooter>
      </div>
    </AccountFrame>
  );
}
