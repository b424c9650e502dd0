import { Image } from "lucide-react";
import type { MouseEvent, ReactNode } from "react";
import { PENDING_ADDRESS } from "./parsing/open-ends";
import { safeHref } from "./safe-url";
import { sentences } from "./sentences";

const LOOKS = "text-pine-text underline underline-offset-4 hover:decoration-2";

type AnswerLinkProps = {
  address: string;
  title?: string | null | undefined;
  /** Whether its text is an address, which runs from left to right in every text. */
  isAddress?: boolean;
  children: ReactNode;
};

/** A link of an answer. Leads out of the app, in a tab of its own; addresses that may not be followed leave the text. */
export function AnswerLink({ address, title, isAddress = false, children }: AnswerLinkProps) {
  if (address === PENDING_ADDRESS) return <span className={LOOKS}>{children}</span>;
  const href = safeHref(address);
  if (!href) return children;
  return (
    <a
      href={href}
      title={title || undefined}
      target="_blank"
      rel="noopener noreferrer nofollow"
      referrerPolicy="no-referrer"
      dir={isAddress ? "ltr" : undefined}
      className={LOOKS}
    >
      {children}
    </a>
  );
}

type AnswerImageProps = {
  address: string;
  alt?: string | null | undefined;
  inLink?: boolean | undefined;
};

/** Where an image would be: a link to it. To load it would tell its server what is being read, and when. */
export function AnswerImage({ address, alt, inLink = false }: AnswerImageProps) {
  const text = (
    <>
      <Image aria-hidden className="me-1 inline size-4 align-text-bottom" />
      {alt?.trim() || sentences.image}
    </>
  );
  return inLink ? text : <AnswerLink address={address}>{text}</AnswerLink>;
}

function noteId(idPrefix: string, number: number): string {
  return `${idPrefix}note-${number}`;
}

function markId(idPrefix: string, number: number): string {
  return `${idPrefix}mark-${number}`;
}

/** Goes to another place of the same text, without an entry in the browser's history. */
function goTo(event: MouseEvent, id: string): void {
  event.preventDefault();
  document.getElementById(id)?.focus();
}

export function FootnoteMark({ number, idPrefix }: { number: number; idPrefix: string }) {
  const note = noteId(idPrefix, number);
  return (
    <sup>
      <a
        id={markId(idPrefix, number)}
        href={`#${note}`}
        aria-label={sentences.footnote(number)}
        onClick={(event) => goTo(event, note)}
        className={`${LOOKS} px-0.5`}
      >
        {number}
      </a>
    </sup>
  );
}

type FootnotesProps = { notes: readonly ReactNode[]; dirs: readonly ("rtl" | "auto")[]; idPrefix: string };

export function Footnotes({ notes, dirs, idPrefix }: FootnotesProps) {
  return (
    <ol className="list-decimal space-y-2 border-t pt-3 text-sm text-ink-2">
      {notes.map((note, index) => {
        const number = index + 1;
        const mark = markId(idPrefix, number);
        return (
          <li
            key={number}
            id={noteId(idPrefix, number)}
            dir={dirs[index] ?? "auto"}
            tabIndex={-1}
            className="ms-7 space-y-1 ps-1"
          >
            {note}
            <a
              href={`#${mark}`}
              aria-label={sentences.backFromFootnote(number)}
              onClick={(event) => goTo(event, mark)}
              className={LOOKS}
            >
              ↩
            </a>
          </li>
        );
      })}
    </ol>
  );
}
