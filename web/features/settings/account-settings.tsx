"use client";

import { useState } from "react";
import { FormError } from "@/components/ui/form-error";
import { PasswordField } from "@/features/account/fields/password-field";
import { TextLink } from "@/components/ui/text-link";
import { PASSWORD_RULE, passwordProblem } from "@/features/account/fields/field-problems";
import { useSubmit } from "@/lib/use-submit";
import { useLogOut } from "@/features/account/use-log-out";
import { Button } from "@/components/ui/button";
import { toast, toastError } from "@/components/ui/toaster";
import { api, unwrap } from "@/lib/api/client";
import type { User } from "@/lib/api/types";
import { signOut } from "@/lib/auth/session";
import { paths } from "@/lib/paths";
import { Section } from "@/components/ui/section";
import { useLeaveWarning } from "./use-leave-warning";

/** The sign-in: address, password, and the ways out. */
export function AccountSettings({ user }: { user: User }) {
  return (
    <div className="grid gap-8">
      <Section title="Email" description="With which you log in. Only you see it.">
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
      toast.success("Your password is changed.", {
        description: "Other devices stay logged in until you log them out below.",
      });
    },
  });
  useLeaveWarning(password !== "" && !form.pending);
  return (
    <Section title="Password">
      <form className="grid max-w-sm gap-4" onSubmit={form.onSubmit} noValidate>
        <FormError error={form.error} waitSeconds={form.waitSeconds} />
        {form.error?.reason === "REAUTHENTICATION_NEEDED" ? (
          <p className="text-sm text-muted-foreground">
            Log out and in again, or have a link sent:{" "}
            <TextLink href={paths.forgotPassword}>Forgot your password?</TextLink>
          </p>
        ) : null}
        {/* Tells password managers whose password it is. */}
        <input type="text" name="username" autoComplete="username" value={email} readOnly hidden />
        <PasswordField
          label="New password"
          autoComplete="new-password"
          value={password}
          onChange={setPassword}
          hint={PASSWORD_RULE}
          error={form.fieldErrors.password}
        />
        <div>
          <Button type="submit" loading={form.pending}>
            Change password
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
      toast.success("Everywhere else is logged out.", { description: "Open pages notice within the hour." });
    } catch (error) {
      toastError(error, "The others are still logged in.");
    } finally {
      setPending(false);
    }
  };
  return (
    <Section title="Logged in" description="Lost a device, or used somebody else's? Log out there from here.">
      <div className="flex flex-wrap gap-3">
        <Button variant="outline" onClick={() => logOut()}>
          Log out
        </Button>
        <Button variant="outline" loading={pending} onClick={() => void logOutOthers()}>
          Log out everywhere else
        </Button>
      </div>
    </Section>
  );
}
