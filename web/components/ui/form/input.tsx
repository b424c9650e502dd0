"use client";

import type { ComponentProps } from "react";
import { cn } from "@/lib/utils";
import { useFieldControl } from "./field";

export function Input({ className, ...props }: ComponentProps<"input">) {
  const field = useFieldControl();
  return (
    <input
      className={cn(
        "h-9 w-full min-w-0 rounded-lg border border-edge bg-raised px-3 text-base placeholder:text-ink-3 focus-visible:outline-offset-[-1px] disabled:opacity-60 aria-invalid:border-danger-text sm:text-sm",
        className,
      )}
      {...field}
      {...props}
    />
  );
}
