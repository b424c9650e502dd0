"use client";

import * as Primitive from "radix-ui/radio-group";
import type { ComponentProps } from "react";
import { cn } from "@/lib/utils";

export function RadioGroup({ className, ...props }: ComponentProps<typeof Primitive.Root>) {
  return <Primitive.Root className={cn("grid gap-3", className)} {...props} />;
}

export function RadioGroupItem({ className, ...props }: ComponentProps<typeof Primitive.Item>) {
  return (
    <Primitive.Item
      className={cn(
        "inline-flex size-6 shrink-0 items-center justify-center rounded-full border border-edge bg-raised disabled:opacity-60 data-[state=checked]:border-pine",
        className,
      )}
      {...props}
    >
      <Primitive.Indicator className="size-3 rounded-full bg-pine" />
    </Primitive.Item>
  );
}
