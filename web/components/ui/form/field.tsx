"use client";

import { createContext, type ReactNode, useContext, useId } from "react";
import { cn } from "@/lib/utils";
import { Label } from "./label";

type FieldContext = { id: string; "aria-describedby"?: string; "aria-invalid"?: true };

const Context = createContext<FieldContext | null>(null);

/** What a control needs to belong to the Field around it; Input and Textarea take it by themselves. */
export function useFieldControl(): Partial<FieldContext> {
  return useContext(Context) ?? {};
}

export type FieldProps = {
  label: ReactNode;
  children: ReactNode;
  /** A sentence below the control. */
  hint?: ReactNode;
  /** What is wrong with the value; replaces nothing, stands below the hint and is announced. */
  error?: ReactNode;
  /** At the label's other end, for instance a link. */
  aside?: ReactNode;
  className?: string;
};

/** A label, its control, and what there is to say about it. */
export function Field({ label, children, hint, error, aside, className }: FieldProps) {
  const id = useId();
  const hintId = `${id}-hint`;
  const errorId = `${id}-error`;
  const described = [hint ? hintId : "", error ? errorId : ""].filter(Boolean).join(" ");
  const context: FieldContext = {
    id,
    ...(described ? { "aria-describedby": described } : {}),
    ...(error ? { "aria-invalid": true } : {}),
  };
  return (
    <div className={cn("grid grid-cols-1 gap-1.5", className)}>
      <div className="flex items-baseline justify-between gap-2">
        <Label htmlFor={id}>{label}</Label>
        {aside}
      </div>
      <Context.Provider value={context}>{children}</Context.Provider>
      {hint ? (
        <p id={hintId} className="text-[0.8125rem] text-ink-2">
          {hint}
        </p>
      ) : null}
      {error ? (
        <p id={errorId} role="alert" className="text-[0.8125rem] text-danger-text">
          {error}
        </p>
      ) : null}
    </div>
  );
}
