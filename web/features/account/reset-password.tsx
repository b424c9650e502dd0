"use client";

import { useRouter } from "next/navigation";
import { useCallback, useEffect, useRef, useState } from "react";
import { Button } from "@/components/ui/button";
import { ErrorNotice } from "@/components/ui/error-notice";
import { Skeleton } from "@/components/ui/skeleton";
import { toast } from "@/components/ui/toaster";
import { api, unwrap } from "@/lib/api/client";
import { type LinkResult, linkFailure } from "@/lib/auth/link-result";
import { adoptSession } from "@/lib/auth/session";
import { useAuth } from "@/lib/auth/use-auth";
import { paths } from "@/lib/paths";
import { AccountFooter, AccountFrame } from "./account-frame";
import { FormError } from "@/components/ui/form-error";
import { PasswordField } from "./fields/password-field";
import { TextLink } from "@/components/ui/text-link";
import { useLink } from "./use-link";
import { PASSWORD_RULE, passwordProblem } from "./fields/field-problems";
import { useSubmit } from "@/lib/use-submit";

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
    <AccountFrame title="Choose a new password">
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
          <p className="text-sm">To choose a new password, open the link of the mail, or ask for a new one.</p>
          <AskAgain />
        </>
      )}
    </AccountFrame>
  );
}

function AskAgain() {
  return (
    <AccountFooter>
      <TextLink href={paths.forgotPassword}>Send a new link</TextLink> · <TextLink href={paths.logIn}>Log in</TextLink>
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
      toast.success("Your password is changed.");
      router.replace(paths.home);
    },
  });
  return (
    <form className="grid gap-4" onSubmit={form.onSubmit} noValidate>
      <FormError error={form.error} waitSeconds={form.waitSeconds} />
      {email ? (
        <p className="text-sm text-muted-foreground">
          For <strong className="break-all text-foreground">{email}</strong>
        </p>
      ) : null}
      {/* Tells password managers whose password it is. */}
      <input type="text" name="username" autoComplete="username" value={email ?? ""} readOnly hidden />
      <PasswordField
        label="New password"
        autoComplete="new-password"
        value={password}
        onChange={setPassword}
        hint={PASSWORD_RULE}
        error={form.fieldErrors.password}
      />
      <Button type="submit" loading={form.pending}>
        Save password
      </Button>
    </form>
  );
}
