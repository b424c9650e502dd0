import type { Html, Paragraph, RootContent } from "mdast";
import { DISCLOSURE_TAG } from "./html-rules";

/** A block, or a piece of one. */
export type Piece = { readonly key: number | string; readonly node: RootContent; readonly open: boolean };

/** What can be folded: what always shows, and what it holds. */
export type Disclosure = {
  readonly key: string;
  readonly isOpen: boolean;
  readonly summary: readonly Piece[];
  readonly parts: readonly Part[];
};

export type Part = Piece | Disclosure;

/** More levels than any text has. */
const DEEPEST = 12;

type Frame = { tag: Piece; isOpen: boolean; summary: Piece[] | null; isInSummary: boolean; parts: Part[] };

/** The pieces stay the same objects for as long as their block does, so that they need not be shown anew. */
const known = new WeakMap<RootContent, readonly Piece[]>();

export function isDisclosure(part: Part): part is Disclosure {
  return "parts" in part;
}

/** Whether some of the nodes may be folded. */
export function mayDisclose(nodes: readonly { type: string }[]): boolean {
  return nodes.some((node) => node.type === "disclosureLine");
}

/**
 * Puts the blocks between the tags of <details> together. Without its closing tag it holds the rest if it has a summary:
 * folded while the text grows, and unfolded once that has ended. Tags without others are text.
 */
export function disclose(blocks: readonly Piece[], isGrowing: boolean): readonly Part[] {
  if (!mayDisclose(blocks.map((block) => block.node))) return blocks;
  const root: Part[] = [];
  const frames: Frame[] = [];
  for (const block of blocks) {
    const pieces = frames.length > 0 || isOpening(block.node) ? piecesOf(block) : [block];
    for (const piece of pieces) {
      if (piece.node.type === "disclosureTag")
        takeTag(piece.node.value.toLowerCase().replaceAll(/\s+(?=>|$)/g, ""), piece);
      else add(piece);
    }
  }
  while (frames.length > 0) close(false);
  return root;

  function add(block: Piece): void {
    const frame = frames.at(-1);
    if (frame?.isInSummary) frame.summary?.push(block);
    else (frame?.parts ?? root).push(block);
  }

  function takeTag(tag: string, block: Piece): void {
    const frame = frames.at(-1);
    if (tag === "") return;
    if (tag.startsWith("<d") && frames.length < DEEPEST && !frame?.isInSummary) {
      frames.push({ tag: block, isOpen: tag.includes("open"), summary: null, isInSummary: false, parts: [] });
    } else if (frame && tag === "</details>") {
      close(true);
    } else if (frame && tag === "<summary>" && !frame.summary && frame.parts.length === 0) {
      frame.summary = [];
      frame.isInSummary = true;
    } else if (frame?.isInSummary && tag === "</summary>") {
      frame.isInSummary = false;
    } else {
      add(asText(block));
    }
  }

  function close(isClosed: boolean): void {
    const frame = frames.pop();
    if (!frame) return;
    const around = frames.at(-1)?.parts ?? root;
    if (!isClosed && !frame.summary) {
      around.push(asText(frame.tag), ...frame.parts);
      return;
    }
    const isOpen = frame.isOpen || !(isClosed || isGrowing);
    around.push({ key: `${frame.tag.key}`, isOpen, summary: frame.summary ?? [], parts: frame.parts });
  }
}

function isOpening(node: RootContent): boolean {
  if (node.type !== "disclosureLine") return false;
  return node.children.some((child) => child.type === "disclosureTag" && /^<d/i.test(child.value));
}

function asText({ key, node, open }: Piece): Piece {
  return { key, node: { type: "html", value: node.type === "disclosureTag" ? node.value : "" }, open };
}

function piecesOf(block: Piece): readonly Piece[] {
  const { node } = block;
  if (node.type !== "disclosureLine" && node.type !== "paragraph" && node.type !== "html") return [block];
  const before = known.get(node);
  if (before) return before;
  const nodes =
    node.type === "paragraph" ? partAtClosings(node) : node.type === "html" ? partHtml(node) : node.children;
  const pieces =
    nodes.length === 1 && nodes[0] === node
      ? [block]
      : nodes.map((piece, place) => ({
          key: `${block.key}.${place}`,
          node: piece,
          open: block.open && place === nodes.length - 1,
        }));
  known.set(node, pieces);
  return pieces;
}

/** A block of other HTML in parts: by Markdown's rule it goes on to an empty line, over all tags within it. */
function partHtml(html: Html): RootContent[] {
  const parts: RootContent[] = [];
  let from = 0;
  const add = (text: string): void => {
    if (text.trim() !== "") parts.push({ type: "html", value: text.trim() });
  };
  for (const { index, 0: tag } of html.value.matchAll(DISCLOSURE_TAG)) {
    add(html.value.slice(from, index));
    parts.push({ type: "disclosureTag", value: tag });
    from = index + tag.length;
  }
  if (from === 0) return [html];
  add(html.value.slice(from));
  return parts;
}

/** A paragraph in parts, where </details> stands within or behind its words. */
function partAtClosings(paragraph: Paragraph): RootContent[] {
  const parts: RootContent[] = [];
  let words: Paragraph["children"] = [];
  let depth = 0;
  const flush = (): void => {
    if (words.length > 0) parts.push({ type: "paragraph", children: words });
    words = [];
  };
  for (const child of paragraph.children) {
    if (child.type === "html" && /^<details[\s>]/i.test(child.value)) depth += 1;
    if (child.type !== "html" || !/^<\/(?:details|summary)\s*>$/i.test(child.value) || depth > 0) {
      words.push(child);
      continue;
    }
    flush();
    parts.push({ type: "disclosureTag", value: child.value });
  }
  if (parts.length === 0) return [paragraph];
  flush();
  return parts;
}
