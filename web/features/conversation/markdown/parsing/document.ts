import type { Code, RootContent } from "mdast";
import { type CarriedPart, carryPart, mergePart } from "./long-blocks";
import { closeOpenEnds } from "./open-ends";
import { collectReferences, hasReferences, type References } from "./references";
import { levelHeadings, parseBlocks } from "./syntax-tree";

/** A top-level block. Stays the same object for as long as it is the same text. */
export type Block = {
  readonly key: number;
  readonly source: string;
  readonly node: RootContent;
  /** Whether its end has not arrived yet. */
  readonly open: boolean;
};

/**
 * A text that may still grow, in blocks. Markdown is decided line by line: once another block has begun behind it, a
 * block never changes. So only the text from the last block or two on is read again when more text has come.
 */
export type MarkdownDocument = {
  readonly text: string;
  readonly streaming: boolean;
  readonly blocks: readonly Block[];
  /** Definitions of links and footnotes, which may stand anywhere; resolved once the text is complete. */
  readonly references: References | null;
  /** How many blocks are final, where the text behind them begins, and the headings above it. */
  readonly settled: number;
  readonly settledEnd: number;
  readonly headings: readonly number[];
  /** What need not be read again of the first block behind those. */
  readonly carried: CarriedPart | null;
};

const EMPTY: MarkdownDocument = {
  text: "",
  streaming: true,
  blocks: [],
  references: null,
  settled: 0,
  settledEnd: 0,
  headings: [],
  carried: null,
};

/** Beyond this length the last block of a text that grows is shown as plain text until another one begins. */
const LONGEST_GROWING_BLOCK = 40_000;

/** The document of a text, made from that of an earlier state of the text where possible. */
export function advance(previous: MarkdownDocument | null, raw: string, streaming: boolean): MarkdownDocument {
  const text = normalise(raw);
  let start = EMPTY;
  if (previous?.streaming && text.startsWith(previous.text)) start = previous;
  if (previous?.text === text && previous.streaming === streaming) return previous;
  if (!streaming && hasReferences(text)) return wholeDocument(text);
  return read(start, text, streaming);
}

// A mark of byte order and returns of the carriage would make the parser's offsets differ from the text's.
function normalise(text: string): string {
  return /[\r\uFEFF]/.test(text) ? text.replace(/\r\n?/g, "\n").replaceAll("\uFEFF", "") : text;
}

function wholeDocument(text: string): MarkdownDocument {
  const nodes = parseBlocks(text);
  let headings = EMPTY.headings;
  const blocks = nodes.map((node, key) => {
    headings = levelHeadings(node, headings);
    return { key, source: sourceOf(node, text), node, open: false };
  });
  const references = collectReferences(nodes);
  return { ...EMPTY, text, streaming: false, blocks, references, headings };
}

function read(start: MarkdownDocument, text: string, streaming: boolean): MarkdownDocument {
  const settled = start.blocks.slice(0, start.settled);
  let { settledEnd, headings } = start;

  // Fences are the blocks that grow longest, and their text needs no reading.
  for (;;) {
    settledEnd = skipBlankLines(text, settledEnd);
    const fence = readFence(text, settledEnd, streaming);
    if (!fence) break;
    if (fence.open) return document([...settled, { ...fence.block, key: settled.length, open: true }]);
    settled.push({ ...fence.block, key: settled.length, open: false });
    settledEnd = fence.end;
  }

  const part = streaming && start.carried?.blockStart === settledEnd ? start.carried : null;
  const from = part?.restStart ?? settledEnd;
  const head = part?.head ?? "";
  const toText = (offset: number): number => Math.max(from, from + offset - head.length);

  const source = head + text.slice(from);
  if (source.trim() === "") return document(settled);
  if (streaming && source.length > LONGEST_GROWING_BLOCK) {
    const node: RootContent = { type: "paragraph", children: [{ type: "text", value: source }] };
    return document([...settled, { key: settled.length, source, node, open: true }]);
  }

  const repaired = streaming ? closeOpenEnds(source) : { text: source, editedFrom: source.length };
  const nodes = parseBlocks(repaired.text);
  if (part) {
    const merged = mergePart(part, nodes[0]);
    if (!merged) return read({ ...start, carried: null }, text, streaming);
    nodes[0] = merged;
  }
  const final = streaming ? countFinal(nodes, source, repaired.editedFrom) : nodes.length;
  const tail: Block[] = [];
  let carried: CarriedPart | null = null;
  let openHeadings = headings;
  nodes.forEach((node, index) => {
    openHeadings = levelHeadings(node, openHeadings);
    const own = sourceOf(node, repaired.text);
    const block = {
      key: settled.length + tail.length,
      source: part && index === 0 ? text.slice(part.blockStart, from) + own : own,
      node,
      open: streaming && index === nodes.length - 1,
    };
    if (index < final) {
      settled.push(keep(start.blocks[block.key], block));
      headings = openHeadings;
      settledEnd = toText(lineStart(source, nodes[index + 1]?.position?.start.offset ?? source.length));
      return;
    }
    if (streaming && index === final) {
      const before = index === 0 ? part : null;
      carried = carryPart(node, before, source, repaired.editedFrom, toText, settledEnd);
      carried ??= before;
    }
    tail.push(keep(start.blocks[block.key], block));
  });
  return document([...settled, ...tail], carried);

  function document(blocks: Block[], carriedPart: CarriedPart | null = null): MarkdownDocument {
    const state = { settled: settled.length, settledEnd, headings, carried: carriedPart };
    return { text, streaming, blocks, references: null, ...state };
  }
}

/** Blocks are compared by their text: one that has not changed needs no rendering. */
function keep(old: Block | undefined, block: Block): Block {
  const same =
    old &&
    old.source === block.source &&
    old.open === block.open &&
    old.node.type === block.node.type &&
    levelOf(old.node) === levelOf(block.node);
  return same ? old : block;
}

function levelOf(node: RootContent): number | undefined {
  return node.type === "heading" ? node.data?.level : undefined;
}

/** How many of the blocks can never change: those before one whose first line is complete. */
function countFinal(nodes: readonly RootContent[], source: string, editedFrom: number): number {
  const lastLine = source.lastIndexOf("\n") + 1;
  for (let index = nodes.length - 1; index > 0; index--) {
    const node = nodes[index];
    const firstLineEnd = source.indexOf("\n", node?.position?.start.offset ?? 0);
    // A formula is one only if nothing else stands on its last line.
    const undecided = node?.type === "math" && (node.position?.end.offset ?? 0) > lastLine;
    if (firstLineEnd >= 0 && firstLineEnd <= editedFrom && !undecided) return index;
  }
  return 0;
}

function sourceOf(node: RootContent, text: string): string {
  return text.slice(node.position?.start.offset ?? 0, node.position?.end.offset ?? 0);
}

function lineStart(text: string, offset: number): number {
  return text.lastIndexOf("\n", offset - 1) + 1;
}

function skipBlankLines(text: string, from: number): number {
  const blank = /(?:[ \t]*\n)*/y;
  blank.lastIndex = from;
  blank.test(text);
  return blank.lastIndex;
}

const FENCE = /( {0,3})(?:(`{3,})([^`\n]*)|(~{3,})([^\n]*))(\n|$)/y;

type Fence = { block: { source: string; node: Code }; open: boolean; end: number };

/** Reads the fenced code that begins at `from`, if one does, without the parser. */
function readFence(text: string, from: number, streaming: boolean): Fence | null {
  FENCE.lastIndex = from;
  const opening = FENCE.exec(text);
  if (!opening) return null;
  const marker = opening[2] ?? opening[4] ?? "";
  const contentStart = FENCE.lastIndex;
  const complete = opening[6] === "\n";
  // Escapes and the like in the line of the opening are the parser's business.
  if (complete && /[\\&]/.test(opening[3] ?? opening[5] ?? "")) return null;
  const info = (opening[3] ?? opening[5] ?? "").trim();
  const language = /^\S*/.exec(info)?.[0] ?? "";
  const closing = new RegExp(`^ {0,3}${marker[0]}{${marker.length},}[ \\t]*$`, "gm");
  closing.lastIndex = contentStart;
  const close = complete ? closing.exec(text) : null;
  const closed = close !== null && (!streaming || text[closing.lastIndex] === "\n");
  let value = text.slice(contentStart, close ? close.index : undefined);
  if (streaming && !close) value = withoutBegunClosing(value, marker);
  const indent = opening[1]?.length ?? 0;
  // So are tabs that are partly taken away.
  if (indent > 0 && /^ *\t/m.test(value)) return null;
  if (indent > 0) value = value.replace(new RegExp(`^ {1,${indent}}`, "gm"), "");
  const end = close ? Math.min(text.length, closing.lastIndex + 1) : text.length;
  const node: Code = {
    type: "code",
    lang: complete || !streaming ? language || null : null,
    meta: info.slice(language.length).trim() || null,
    value: value.replace(/\n$/, ""),
  };
  return { block: { source: text.slice(from, end), node }, open: streaming && !closed, end };
}

/** Without a last line that may become the closing fence. */
function withoutBegunClosing(value: string, marker: string): string {
  const last = value.slice(value.lastIndexOf("\n") + 1).trim();
  const begun = last !== "" && last.length < marker.length && marker.startsWith(last);
  return begun ? value.slice(0, value.lastIndexOf("\n") + 1) : value;
}
