"use client";

import type { ComponentProps } from "react";
import { useFieldControl } from "@/components/ui/form/field";
import { cn } from "@/lib/utils";

/** The browser's own list of choices: known to everybody's keyboard, phone and screen reader. */
export function NativeSelect({ className, ...props }: ComponentProps<"select">) {
  const field = useFieldControl();
  return (
    <select
      className={cn(
        "h-9 w-full min-w-0 rounded-lg border border-edge bg-raised px-2 text-base disabled:opacity-60 aria-invalid:border-danger-text sm:text-sm",
        className,
      )}
      {...field}
      {...props}
    />
  );
}
