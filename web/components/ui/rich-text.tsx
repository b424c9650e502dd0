import { Fragment, type ReactNode } from "react";

/** The names in a sentence's braces. */
type Places<Sentence extends string> = Sentence extends `${string}{${infer Name}}${infer Rest}`
  ? Name | Places<Rest>
  : never;

type RichTextProps<Sentence extends string> = {
  /** A sentence of a catalogue with places for elements, as in "Open {link} to go on." */
  sentence: Sentence;
  parts: Readonly<Record<Places<Sentence>, ReactNode>>;
};

/** A sentence in which some words are elements, so that a translation can put them elsewhere. */
export function RichText<const Sentence extends string>({ sentence, parts }: RichTextProps<Sentence>) {
  return sentence.split(/\{(\w+)\}/).map((piece, index) => {
    // Every second piece is the name of a place.
    if (index % 2 === 0) return piece;
    return <Fragment key={piece}>{parts[piece as Places<Sentence>]}</Fragment>;
  });
}
