import type { ComponentProps } from "react";
import { cn } from "@/lib/utils";

export function Label({ className, ...props }: ComponentProps<"label">) {
  // biome-ignore lint/a11y/noLabelWithoutControl: whoever uses it names the control with htmlFor.
  return <label className={cn("text-sm font-medium leading-6", className)} {...props} />;
}
