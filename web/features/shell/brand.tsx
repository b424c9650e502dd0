import { APP_NAME } from "@/lib/app-name";
import { cn } from "@/lib/utils";

/** The sign and the name, for places where they are not a link. */
export function Brand({ className }: { className?: string }) {
  return (
    <span className={cn("inline-flex items-center gap-2 text-base leading-none font-semibold", className)}>
      <svg viewBox="0 0 32 32" className="size-6 shrink-0" aria-hidden focusable="false">
        <rect width="32" height="32" rx="8" className="fill-brand" />
        <g fill="none" strokeWidth="2.6" strokeLinecap="round" className="stroke-brand-ink">
          <path d="M21.6 10.4a8 8 0 1 0 0 11.2" />
          <path d="M14.2 16h9.6" />
        </g>
      </svg>
      {APP_NAME}
    </span>
  );
}
