import type { ReactNode } from "react";

type SectionProps = { title: string; children: ReactNode; description?: ReactNode };

/** A part of a settings page, under its own heading. */
export function Section({ title, children, description }: SectionProps) {
  return (
    <section className="grid grid-cols-1 gap-4">
      <div className="grid gap-1">
        <h2 className="text-[1.0625rem] leading-6.5 font-semibold">{title}</h2>
        {description ? <p className="text-sm text-ink-2">{description}</p> : null}
      </div>
      {children}
    </section>
  );
}
