"use client";

import { useEffect, useSyncExternalStore } from "react";
import { loadRenderer, onRendererLoaded, renderer } from "./load-renderer";

export type MarkdownProps = {
  text: string;
  /** Whether more text follows; ends that are still open are then closed for the eye. */
  streaming?: boolean;
};

/** What both the plain text and the rendered one stand in, so that little moves when one replaces the other. */
export const PROSE = "min-w-0 max-w-full leading-6.5 wrap-anywhere";

/** An answer's text as Markdown. The renderer is loaded when first needed; until then the text stands there as it is. */
export function Markdown({ text, streaming = false }: MarkdownProps) {
  const Rendered = useSyncExternalStore(onRendererLoaded, renderer, () => null);
  useEffect(() => {
    if (!Rendered) loadRenderer();
  }, [Rendered]);
  return (
    <div className={PROSE}>
      {Rendered ? (
        <Rendered text={text} streaming={streaming} />
      ) : (
        <p dir="auto" className="whitespace-pre-wrap">
          {text}
        </p>
      )}
    </div>
  );
}
