import type { ComponentProps } from "react";
import { Button } from "@/components/ui/button";
import { cn } from "@/lib/utils";

/** A small button that shows a picture; its name is a tooltip and what screen readers say. */
export function IconButton({ label, className, ...props }: ComponentProps<typeof Button> & { label: string }) {
  return (
    <Button
      variant="ghost"
      size="icon"
      aria-label={label}
      title={label}
      className={cn("size-8 text-ink-2 hover:text-ink", className)}
      {...props}
    />
  );
}
