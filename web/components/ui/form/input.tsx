"use client";

import type { ComponentProps } from "react";
import { cn } from "@/lib/utils";
import { useFieldControl } from "./field";

export function Input({ className, ...props }: ComponentProps<"input">) {
  const field = useFieldControl();
  return (
    <input
      className={cn(
        "h-9 w-full min-w-0 rounded-md border border-input bg-background px-3 text-base placeholder:text-muted-foreground disabled:opacity-60 aria-invalid:border-destructive-text sm:text-sm",
        className,
      )}
      {...field}
      {...props}
    />
  );
}
