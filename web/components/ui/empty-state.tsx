import type { ReactNode } from "react";
import { cn } from "@/lib/utils";

export type EmptyStateProps = {
  title: ReactNode;
  /** What to do about it. */
  children?: ReactNode;
  icon?: ReactNode;
  action?: ReactNode;
  className?: string;
};

/** Stands where there is nothing yet and says what to do. */
export function EmptyState({ title, children, icon, action, className }: EmptyStateProps) {
  return (
    <div className={cn("flex flex-col items-center gap-2 px-4 py-8 text-center", className)}>
      {icon ? (
        <div aria-hidden className="text-ink-3 [&_svg]:size-6">
          {icon}
        </div>
      ) : null}
      <p className="type-empty">{title}</p>
      {children ? <div className="max-w-prose text-sm text-balance text-ink-2">{children}</div> : null}
      {action ? <div className="mt-2">{action}</div> : null}
    </div>
  );
}
