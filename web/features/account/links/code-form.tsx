"use client";

import { useCallback, useState } from "react";
import { Button } from "@/components/ui/button";
import { Field } from "@/components/ui/form/field";
import { FormError } from "@/components/ui/form/form-error";
import { Input } from "@/components/ui/form/input";
import { anonymousApi, unwrap } from "@/lib/api/client";
import type { OtpType } from "@/lib/api/types";
import { useSubmit } from "@/lib/use-submit";
import { EmailField } from "../fields/email-field";
import { codeProblem, emailProblem, plainCode } from "../fields/field-problems";
import { sentences } from "../sentences";
import { Adoption, type Tokens } from "./adoption";
import { HalfDone } from "./link-failure-notice";

type CodeFormProps = {
  /** What the mail was sent for. */
  type: OtpType;
  /** The address that it went to; absent: the person says. */
  email?: string;
  onSignedIn: (type: OtpType) => void;
};

/** Takes the code of a mail, which does what its link does. */
export function CodeForm({ type, email: known, onSignedIn }: CodeFormProps) {
  const [typed, setTyped] = useState("");
  const [code, setCode] = useState("");
  const [tokens, setTokens] = useState<Tokens | "half" | null>(null);
  const email = (known ?? typed).trim();
  const form = useSubmit({
    fields: ["email", "token"],
    check: () => ({ email: emailProblem(email), token: codeProblem(code) }),
    submit: async () => {
      const body = { type, email, token: plainCode(code) };
      const { session } = await unwrap(anonymousApi.POST("/auth/verify", { body }));
      setTokens(session ? { accessToken: session.access_token, refreshToken: session.refresh_token } : "half");
    },
  });
  const onAdopted = useCallback(() => onSignedIn(type), [type, onSignedIn]);
  if (tokens === "half") return <HalfDone />;
  if (tokens) return <Adoption tokens={tokens} consent="expected" onSignedIn={onAdopted} />;
  return (
    <form className="grid gap-4" onSubmit={form.onSubmit} noValidate>
      <FormError error={form.error} waitSeconds={form.waitSeconds} />
      {known === undefined ? <EmailField value={typed} onChange={setTyped} error={form.fieldErrors.email} /> : null}
      <Field label={sentences.fields.code} hint={sentences.fields.codeHint} error={form.fieldErrors.token}>
        <Input
          name="code"
          inputMode="numeric"
          autoComplete="one-time-code"
          maxLength={20}
          required
          value={code}
          onChange={(event) => setCode(event.currentTarget.value)}
          className="tabular-nums"
        />
      </Field>
      <div>
        <Button type="submit" loading={form.pending} disabled={form.waitSeconds > 0}>
          {sentences.code.submit[type]}
        </Button>
      </div>
    </form>
  );
}
