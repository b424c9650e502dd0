"use client";

import * as Primitive from "radix-ui/switch";
import type { ComponentProps } from "react";
import { useFieldControl } from "@/components/ui/form/field";
import { cn } from "@/lib/utils";

export function Switch({ className, ...props }: ComponentProps<typeof Primitive.Root>) {
  const field = useFieldControl();
  return (
    <Primitive.Root
      className={cn(
        "inline-flex h-6 w-10 shrink-0 items-center rounded-full border border-edge bg-well-2 p-0.5 transition-colors disabled:opacity-60 data-[state=checked]:border-pine data-[state=checked]:bg-pine",
        className,
      )}
      {...field}
      {...props}
    >
      <Primitive.Thumb className="block size-4.5 rounded-full bg-edge transition-transform data-[state=checked]:translate-x-4 data-[state=checked]:bg-pine-ink" />
    </Primitive.Root>
  );
}
