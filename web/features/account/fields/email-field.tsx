"use client";

import type { ReactNode } from "react";
import { Field } from "@/components/ui/form/field";
import { Input } from "@/components/ui/form/input";
import { sentences } from "../sentences";

type EmailFieldProps = { value: string; onChange: (value: string) => void; hint?: ReactNode; error?: ReactNode };

/** The address of an account; password managers take it for the user's name. */
export function EmailField({ value, onChange, hint, error }: EmailFieldProps) {
  return (
    <Field label={sentences.fields.email} hint={hint} error={error}>
      <Input
        type="email"
        name="email"
        autoComplete="username"
        inputMode="email"
        autoCapitalize="none"
        required
        value={value}
        onChange={(event) => onChange(event.currentTarget.value)}
      />
    </Field>
  );
}
