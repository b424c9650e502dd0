"use client";

import { Eye, EyeOff } from "lucide-react";
import { type ReactNode, useState } from "react";
import { Field } from "@/components/ui/form/field";
import { Input } from "@/components/ui/form/input";
import { sentences } from "../sentences";

export type PasswordFieldProps = {
  label: string;
  value: string;
  onChange: (value: string) => void;
  /** What password managers are to offer. */
  autoComplete: "current-password" | "new-password";
  hint?: ReactNode;
  error?: ReactNode;
  aside?: ReactNode;
};

/** A password that can be shown while it is typed. */
export function PasswordField({ label, value, onChange, autoComplete, hint, error, aside }: PasswordFieldProps) {
  const [shown, setShown] = useState(false);
  const Icon = shown ? EyeOff : Eye;
  return (
    <Field label={label} hint={hint} error={error} aside={aside}>
      <PasswordInput
        shown={shown}
        value={value}
        onChange={onChange}
        autoComplete={autoComplete}
        toggle={
          <button
            type="button"
            aria-label={shown ? sentences.fields.hideCharacters : sentences.fields.showCharacters}
            className="absolute inset-y-0 end-0 inline-flex w-9 items-center justify-center rounded-md text-ink-2 hover:text-ink"
            onClick={() => setShown(!shown)}
          >
            <Icon className="size-4" aria-hidden />
          </button>
        }
      />
    </Field>
  );
}

type PasswordInputProps = Pick<PasswordFieldProps, "value" | "onChange" | "autoComplete"> & {
  shown: boolean;
  toggle: ReactNode;
};

function PasswordInput({ shown, value, onChange, autoComplete, toggle }: PasswordInputProps) {
  return (
    <div className="relative">
      <Input
        type={shown ? "text" : "password"}
        name={autoComplete}
        autoComplete={autoComplete}
        autoCapitalize="none"
        autoCorrect="off"
        spellCheck={false}
        required
        value={value}
        onChange={(event) => onChange(event.currentTarget.value)}
        className="pe-10"
      />
      {toggle}
    </div>
  );
}
