import type { ReactNode } from "react";
import { dirOf } from "./direction";
import type { Disclosure } from "./parsing/disclosures";
import { sentences } from "./sentences";

export type DisclosureViewProps = { disclosure: Disclosure; summary: ReactNode; children: ReactNode };

/** What can be folded, as browsers do it. */
export function DisclosureView({ disclosure, summary, children }: DisclosureViewProps) {
  const { isOpen } = disclosure;
  const dir = dirOf(...disclosure.summary.map((piece) => piece.node));
  return (
    <details open={isOpen} dir={dir} className="rounded-lg border px-4 py-2">
      <summary className="cursor-pointer font-medium">{summary ?? sentences.details}</summary>
      {children}
    </details>
  );
}
