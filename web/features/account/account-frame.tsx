import type { ReactNode } from "react";

/** A page of signing in: its heading and a narrow column. */
export function AccountFrame({ title, children }: { title: string; children: ReactNode }) {
  return (
    <div className="grid grid-cols-1 gap-6">
      <h1 className="type-display">{title}</h1>
      {children}
    </div>
  );
}

/** A line of text below a form, with where else to go. */
export function AccountFooter({ children }: { children: ReactNode }) {
  return <p className="text-sm text-ink-2">{children}</p>;
}
