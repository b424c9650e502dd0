"use client";

import { useRouter } from "next/navigation";
import { useCallback, useState } from "react";
import { Button } from "@/components/ui/button";
import { FormError } from "@/components/ui/form/form-error";
import { RichText } from "@/components/ui/rich-text";
import { Skeleton } from "@/components/ui/skeleton";
import { TextLink } from "@/components/ui/text-link";
import { toast } from "@/components/ui/toaster";
import { api, unwrap } from "@/lib/api/client";
import type { LinkResult } from "@/lib/auth/link-result";
import { useAuth } from "@/lib/auth/use-auth";
import { paths } from "@/lib/paths";
import { useSubmit } from "@/lib/use-submit";
import { AccountFooter, AccountFrame } from "./account-frame";
import { PASSWORD_RULE, passwordProblem } from "./fields/field-problems";
import { PasswordField } from "./fields/password-field";
import { LinkOutcome } from "./links/link-outcome";
import { useLink } from "./links/use-link";
import { sentences } from "./sentences";

/** Where the link of a reset mail leads: it signs in, and a new password can be chosen. */
export function ResetPassword() {
  const link = useLink();
  const [done, setDone] = useState<LinkResult>();
  const onSignedIn = useCallback(() => setDone(link), [link]);
  return (
    <AccountFrame title={sentences.titles.resetPassword}>
      {link !== undefined && link === done ? (
        <NewPassword />
      ) : (
        <LinkOutcome link={link} onSignedIn={onSignedIn}>
          <NewPassword />
        </LinkOutcome>
      )}
    </AccountFrame>
  );
}

function NewPassword() {
  const { status, email } = useAuth();
  if (status === "loading") {
    return (
      <div aria-busy="true" className="grid gap-4">
        <Skeleton className="h-9 w-full" />
        <Skeleton className="h-9 w-full" />
      </div>
    );
  }
  if (status === "signed-in") return <NewPasswordForm email={email} />;
  return (
    <>
      <p className="text-sm">{sentences.resetPassword.needsLink}</p>
      <AskAgain />
    </>
  );
}

function AskAgain() {
  return (
    <AccountFooter>
      <TextLink href={paths.forgotPassword}>{sentences.links.sendNewLink}</TextLink> ·{" "}
      <TextLink href={paths.confirm("recovery")}>{sentences.links.enterCode}</TextLink> ·{" "}
      <TextLink href={paths.logIn}>{sentences.links.logIn}</TextLink>
    </AccountFooter>
  );
}

function NewPasswordForm({ email }: { email: string | null }) {
  const [password, setPassword] = useState("");
  const router = useRouter();
  const form = useSubmit({
    fields: ["password"],
    check: () => ({ password: passwordProblem(password) }),
    submit: async () => {
      await unwrap(api.PUT("/auth/password", { body: { password } }));
      toast.success(sentences.resetPassword.changed);
      router.replace(paths.home);
    },
  });
  return (
    <form className="grid gap-4" onSubmit={form.onSubmit} noValidate>
      <FormError error={form.error} waitSeconds={form.waitSeconds} />
      {email ? (
        <p className="text-sm text-ink-2">
          <RichText
            sentence={sentences.resetPassword.account}
            parts={{ email: <strong className="wrap-anywhere text-ink">{email}</strong> }}
          />
        </p>
      ) : null}
      {/* Tells password managers whose password it is. */}
      <input type="text" name="username" autoComplete="username" value={email ?? ""} readOnly hidden />
      <PasswordField
        label={sentences.fields.newPassword}
        autoComplete="new-password"
        value={password}
        onChange={setPassword}
        hint={PASSWORD_RULE}
        error={form.fieldErrors.password}
      />
      <Button type="submit" loading={form.pending}>
        {sentences.resetPassword.submit}
      </Button>
    </form>
  );
}
