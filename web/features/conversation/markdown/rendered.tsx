"use client";

import { Component, memo, type ReactNode, useEffect, useId, useMemo, useRef, useState } from "react";
import { cn } from "@/lib/utils";
import { disclose, type Piece } from "./parsing/disclosures";
import { advance, type MarkdownDocument } from "./parsing/document";
import "./markdown.css";
import { BLOCKS, renderFootnotes, renderNode, renderParts } from "./nodes";
import type { References } from "./parsing/references";
import { useSteady } from "./use-steady";

/** Longer texts are read in pieces of this length, so that the page goes on answering meanwhile. */
const PIECE = 40_000;
const MOST_CACHED = 80;

/** Finished texts, so that those that are scrolled back into view need not be read again. */
const cache = new Map<string, MarkdownDocument>();

function finishedDocument(previous: MarkdownDocument | null, text: string): MarkdownDocument {
  const known = cache.get(text);
  if (known && !previous) return known;
  const document = advance(previous, text, false);
  cache.delete(text);
  if (text.length <= PIECE) cache.set(text, document);
  const oldest = cache.keys().next();
  if (cache.size > MOST_CACHED && !oldest.done) cache.delete(oldest.value);
  return document;
}

/** How much of a text may be read by now. */
function useReadable(text: string, streaming: boolean): number {
  const [readable, setReadable] = useState(streaming ? Number.POSITIVE_INFINITY : PIECE);
  const more = !streaming && readable < text.length;
  useEffect(() => {
    if (!more) return;
    const timer = setTimeout(() => setReadable(readable + PIECE));
    return () => clearTimeout(timer);
  }, [more, readable]);
  return streaming ? text.length : readable;
}

/** A text's document; while the text grows, that of an earlier state is carried on. */
function useDocument(text: string, streaming: boolean): { document: MarkdownDocument; rest: string } {
  const last = useRef<MarkdownDocument | null>(null);
  const readable = useReadable(text, streaming);
  const document = useMemo(() => {
    if (readable < text.length) return advance(last.current, text.slice(0, readable), true);
    return streaming ? advance(last.current, text, true) : finishedDocument(last.current, text);
  }, [text, streaming, readable]);
  useEffect(() => {
    last.current = document;
  }, [document]);
  return { document, rest: text.slice(readable) };
}

const BlockView = memo(function BlockView(props: { block: Piece; references: References | null; idPrefix: string }) {
  const { block, references, idPrefix } = props;
  return renderNode(block.node, { open: block.open, references, idPrefix });
});

/** Markdown as elements. */
export function Rendered({ text, streaming }: { text: string; streaming: boolean }) {
  const steady = useSteady(text, streaming);
  return (
    <PlainOnFailure text={steady}>
      <RenderedDocument text={steady} streaming={streaming} />
    </PlainOnFailure>
  );
}

/** The same without its steady pace. */
export const RenderedDocument = memo(function RenderedDocument({
  text,
  streaming,
}: {
  text: string;
  streaming: boolean;
}) {
  const { document, rest } = useDocument(text, streaming);
  const idPrefix = useId();
  const { references } = document;
  return (
    <div className={cn("answer-text", BLOCKS)}>
      {renderParts(disclose(document.blocks, document.streaming), { references, idPrefix }, (block) => (
        <BlockView block={block} references={references} idPrefix={idPrefix} />
      ))}
      {references && references.footnotes.length > 0 ? renderFootnotes(references, { references, idPrefix }) : null}
      {rest ? (
        <p dir="auto" className="whitespace-pre-wrap">
          {rest}
        </p>
      ) : null}
    </div>
  );
});

type PlainOnFailureProps = { text: string; children: ReactNode };

/** A text that cannot be rendered stays readable. */
class PlainOnFailure extends Component<PlainOnFailureProps, { failed: string | null }> {
  override state: { failed: string | null } = { failed: null };

  static getDerivedStateFromError(): { failed: string } {
    return { failed: "" };
  }

  override componentDidUpdate(previous: PlainOnFailureProps): void {
    // Another text may well be fine; while one grows, it is tried again as it comes.
    if (this.state.failed !== null && previous.text !== this.props.text) this.setState({ failed: null });
  }

  override render(): ReactNode {
    if (this.state.failed === null) return this.props.children;
    return (
      <p dir="auto" className="whitespace-pre-wrap">
        {this.props.text}
      </p>
    );
  }
}
