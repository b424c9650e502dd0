"use client";

import { useState } from "react";
import { Button } from "@/components/ui/button";
import { FormError } from "@/components/ui/form/form-error";
import { RichText } from "@/components/ui/rich-text";
import { Section } from "@/components/ui/section";
import { TextLink } from "@/components/ui/text-link";
import { toast, toastError } from "@/components/ui/toaster";
import { PASSWORD_RULE, passwordProblem } from "@/features/account/fields/field-problems";
import { PasswordField } from "@/features/account/fields/password-field";
import { useLogOut } from "@/features/account/use-log-out";
import { api, unwrap } from "@/lib/api/client";
import type { User } from "@/lib/api/types";
import { signOut } from "@/lib/auth/session";
import { paths } from "@/lib/paths";
import { useSubmit } from "@/lib/use-submit";
import { sentences } from "./sentences";
import { useLeaveWarning } from "./use-leave-warning";

/** The sign-in: address, password, and the ways out. */
export function AccountSettings({ user }: { user: User }) {
  return (
    <div className="grid gap-8">
      <Section title={sentences.email.title} description={sentences.email.description}>
        <p className="text-sm break-all">{user.email}</p>
      </Section>
      <ChangePassword email={user.email} />
      <SignIns />
    </div>
  );
}

function ChangePassword({ email }: { email: string }) {
  const [password, setPassword] = useState("");
  const form = useSubmit({
    fields: ["password"],
    check: () => ({ password: passwordProblem(password) }),
    submit: async () => {
      await unwrap(api.PUT("/auth/password", { body: { password } }));
      setPassword("");
      toast.success(sentences.password.changed, {
        description: sentences.password.changedHint,
      });
    },
  });
  useLeaveWarning(password !== "" && !form.pending);
  return (
    <Section title={sentences.password.title}>
      <form className="grid max-w-sm gap-4" onSubmit={form.onSubmit} noValidate>
        <FormError error={form.error} waitSeconds={form.waitSeconds} />
        {form.error?.reason === "REAUTHENTICATION_NEEDED" ? (
          <p className="text-sm text-ink-2">
            <RichText
              sentence={sentences.password.logInAgain}
              parts={{
                forgotPassword: <TextLink href={paths.forgotPassword}>{sentences.password.forgotPassword}</TextLink>,
              }}
            />
          </p>
        ) : null}
        {/* Tells password managers whose password it is. */}
        <input type="text" name="username" autoComplete="username" value={email} readOnly hidden />
        <PasswordField
          label={sentences.password.label}
          autoComplete="new-password"
          value={password}
          onChange={setPassword}
          hint={PASSWORD_RULE}
          error={form.fieldErrors.password}
        />
        <div>
          <Button type="submit" loading={form.pending}>
            {sentences.password.submit}
          </Button>
        </div>
      </form>
    </Section>
  );
}

function SignIns() {
  const logOut = useLogOut();
  const [pending, setPending] = useState(false);
  const logOutOthers = async () => {
    setPending(true);
    try {
      await signOut("others");
      toast.success(sentences.signIns.othersLoggedOut, { description: sentences.signIns.othersHint });
    } catch (error) {
      toastError(error, sentences.signIns.othersFailed);
    } finally {
      setPending(false);
    }
  };
  return (
    <Section title={sentences.signIns.title} description={sentences.signIns.description}>
      <div className="flex flex-wrap gap-3">
        <Button variant="outline" onClick={() => logOut()}>
          {sentences.signIns.logOut}
        </Button>
        <Button variant="outline" loading={pending} onClick={() => void logOutOthers()}>
          {sentences.signIns.logOutOthers}
        </Button>
      </div>
    </Section>
  );
}
