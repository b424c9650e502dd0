"use client";

import { useRouter } from "next/navigation";
import { useCallback, useEffect, useRef, useState } from "react";
import { Button } from "@/components/ui/button";
import { ErrorNotice } from "@/components/ui/error-notice";
import { FormError } from "@/components/ui/form/form-error";
import { RichText } from "@/components/ui/rich-text";
import { Skeleton } from "@/components/ui/skeleton";
import { TextLink } from "@/components/ui/text-link";
import { toast } from "@/components/ui/toaster";
import { api, unwrap } from "@/lib/api/client";
import type { LinkResult } from "@/lib/auth/link-result";
import { adoptSession } from "@/lib/auth/session";
import { useAuth } from "@/lib/auth/use-auth";
import { paths } from "@/lib/paths";
import { useSubmit } from "@/lib/use-submit";
import { AccountFooter, AccountFrame } from "./account-frame";
import { PASSWORD_RULE, passwordProblem } from "./fields/field-problems";
import { PasswordField } from "./fields/password-field";
import { linkFailure } from "./link-failure";
import { sentences } from "./sentences";
import { useLink } from "./use-link";

/** Where the link of a reset mail leads: it signs in, and a new password can be chosen. */
export function ResetPassword() {
  const link = useLink();
  const { status, email } = useAuth();
  const [adoption, setAdoption] = useState<
    { state: "none" | "under-way" | "done" } | { state: "failed"; error: unknown }
  >({ state: "none" });
  const begun = useRef<LinkResult | null>(null);

  const adopt = useCallback(async () => {
    if (link?.kind !== "tokens") return;
    setAdoption({ state: "under-way" });
    try {
      await adoptSession({ access_token: link.accessToken, refresh_token: link.refreshToken });
      setAdoption({ state: "done" });
    } catch (error) {
      setAdoption({ state: "failed", error });
    }
  }, [link]);

  useEffect(() => {
    if (link?.kind !== "tokens" || begun.current === link) return;
    begun.current = link;
    void adopt();
  }, [link, adopt]);

  const waits = link === undefined || status === "loading" || (link.kind === "tokens" && adoption.state === "none");
  return (
    <AccountFrame title={sentences.titles.resetPassword}>
      {waits || adoption.state === "under-way" ? (
        <div aria-busy="true" className="grid gap-4">
          <Skeleton className="h-9 w-full" />
          <Skeleton className="h-9 w-full" />
        </div>
      ) : adoption.state === "failed" ? (
        <>
          <ErrorNotice error={adoption.error} onRetry={() => void adopt()} />
          <AskAgain />
        </>
      ) : link.kind === "error" ? (
        <>
          <p role="alert" className="rounded-lg border border-destructive-text/60 bg-card p-3 text-sm">
            {linkFailure(link.code)}
          </p>
          <AskAgain />
        </>
      ) : status === "signed-in" ? (
        <NewPasswordForm email={email} />
      ) : (
        <>
          <p className="text-sm">{sentences.resetPassword.needsLink}</p>
          <AskAgain />
        </>
      )}
    </AccountFrame>
  );
}

function AskAgain() {
  return (
    <AccountFooter>
      <TextLink href={paths.forgotPassword}>{sentences.links.sendNewLink}</TextLink> ·{" "}
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
        <p className="text-sm text-muted-foreground">
          <RichText
            sentence={sentences.resetPassword.account}
            parts={{ email: <strong className="break-all text-foreground">{email}</strong> }}
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
