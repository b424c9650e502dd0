import type { Nodes } from "mdast";
import type { AnswerPart } from "../runs/run-reducer";
import { advance, type MarkdownDocument } from "./parsing/document";
import { sentences } from "./sentences";

/** Nodes whose children are read one after the other, each as a sentence of its own. */
const APART: Readonly<Record<string, string>> = {
  blockquote: "\n",
  list: "\n",
  listItem: "\n",
  table: "\n",
  tableRow: ", ",
  disclosureLine: " ",
};

/** How a node is read aloud. Blocks of code are left out, formulas only named: their source is nothing to listen to. */
export function spokenText(node: Nodes): string {
  switch (node.type) {
    case "text":
    case "inlineCode":
      return node.value;
    case "break":
      return "\n";
    case "math":
    case "inlineMath":
      return sentences.formula;
    case "image":
      return node.alt ?? "";
    case "definition":
    case "footnoteDefinition":
      return "";
    default:
      if (!("children" in node)) return "";
      return node.children
        .map(spokenText)
        .filter((text) => text.trim() !== "")
        .join(APART[node.type] ?? "");
  }
}

const segmenter =
  typeof Intl.Segmenter === "function" ? new Intl.Segmenter(undefined, { granularity: "sentence" }) : null;

/** The sentences of a text and where each ends. Without the browser's help, all of it is one. */
function segmentsOf(text: string): { text: string; end: number }[] {
  if (!segmenter) return [{ text, end: text.length }];
  return Array.from(segmenter.segment(text), ({ segment, index }) => ({ text: segment, end: index + segment.length }));
}

/** Reads one text of an answer. */
class TextReader {
  private document: MarkdownDocument | null = null;
  private block = 0;
  private readUntil = 0;

  /** The sentences that have become whole since the last call. */
  read(text: string, isGrowing: boolean): string[] {
    this.document = advance(this.document, text, isGrowing);
    const { blocks } = this.document;
    const found: string[] = [];
    for (; this.block < blocks.length; this.block++) {
      const block = blocks[this.block];
      if (!block) break;
      const isLast = isGrowing && this.block === blocks.length - 1;
      const segments = segmentsOf(spokenText(block.node));
      const whole = isLast ? segments.slice(0, -1) : segments;
      for (const segment of whole) {
        if (segment.end <= this.readUntil) continue;
        this.readUntil = segment.end;
        if (/[\p{L}\p{N}]/u.test(segment.text)) found.push(segment.text.trim());
      }
      if (isLast) break;
      this.readUntil = 0;
    }
    return found;
  }
}

/** Reads an answer that grows: returns the sentences that have become whole since the last call, in one text. */
export function answerReader(): (parts: readonly AnswerPart[], isGrowing: boolean) => string {
  let place = 0;
  let reader = new TextReader();
  return (parts, isGrowing) => {
    const found: string[] = [];
    for (; place < parts.length; place++) {
      const part = parts[place];
      const isLast = place === parts.length - 1;
      if (part?.kind === "text") found.push(...reader.read(part.text, isGrowing && isLast));
      if (isLast) break;
      reader = new TextReader();
    }
    return found.join(" ");
  };
}
