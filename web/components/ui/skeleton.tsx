import type { ComponentProps } from "react";
import { cn } from "@/lib/utils";

/** A grey shape where something is being loaded; hidden from screen readers, which hear the region's aria-busy. */
export function Skeleton({ className, ...props }: ComponentProps<"div">) {
  return <div aria-hidden className={cn("animate-pulse rounded-md bg-well-2", className)} {...props} />;
}
