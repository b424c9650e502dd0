import type { List, RootContent, Table } from "mdast";

/**
 * The part of a growing list or table that cannot change any more: a list of hundred items is one block, of which only
 * the last two items are read again when more text has come.
 */
export type CarriedPart = {
  node: List | Table;
  /** Where in the text the block begins, and where the part that is read again. */
  blockStart: number;
  restStart: number;
  /** What has to stand before that part for it to be read as what it is: a table's head. */
  head: string;
};

/** Where the line ends that holds an offset; null when its end has not arrived, or has been made up. */
function finalLineEnd(source: string, offset: number, editedFrom: number): number | null {
  const end = source.indexOf("\n", offset);
  return end >= 0 && end <= editedFrom ? end : null;
}

function startOf(node: { position?: RootContent["position"] }): number {
  return node.position?.start.offset ?? 0;
}

function lineStart(source: string, offset: number): number {
  return source.lastIndexOf("\n", offset - 1) + 1;
}

/**
 * What may be carried of a block that was read from `source`, with what had been carried before already in it,
 * which `source` does not hold.
 */
export function carryPart(
  node: RootContent,
  before: CarriedPart | null,
  source: string,
  editedFrom: number,
  toText: (offset: number) => number,
  blockStart: number,
): CarriedPart | null {
  const carried = before?.node.children.length ?? 0;
  if (node.type === "list") {
    let last = node.children.length - 1;
    while (last > carried) {
      const item = node.children[last];
      if (item && finalLineEnd(source, startOf(item), editedFrom) !== null) break;
      last -= 1;
    }
    // The one before the last is read again with it: what stands between the two decides on the looks of the list.
    const keep = last - 1;
    const next = node.children[keep];
    if (keep <= carried || !next) return null;
    const children = node.children.slice(0, keep);
    const read = node.children.slice(carried, keep + 1);
    const hasGaps = read.some((item, index) => index > 0 && hasGap(read[index - 1]?.position, item.position));
    const spread = hasGaps || (before?.node.type === "list" && before.node.spread === true);
    const restStart = toText(lineStart(source, startOf(next)));
    return { node: { ...node, children, spread }, blockStart, restStart, head: "" };
  }
  if (node.type === "table") {
    let last = node.children.length - 1;
    let end: number | null = null;
    for (; last > carried; last--) {
      const row = node.children[last];
      end = row ? finalLineEnd(source, startOf(row), editedFrom) : null;
      if (end !== null) break;
    }
    if (end === null || last <= carried) return null;
    const begin = lineStart(source, startOf(node));
    const headEnd = source.indexOf("\n", source.indexOf("\n", begin) + 1) + 1;
    const head = source.slice(begin, headEnd);
    return {
      node: { ...node, children: node.children.slice(0, last + 1) },
      blockStart,
      restStart: toText(end + 1),
      head,
    };
  }
  return null;
}

function hasGap(before: List["position"], after: List["position"]): boolean {
  return before !== undefined && after !== undefined && after.start.line > before.end.line + 1;
}

/** The whole block: what was carried, and what was read behind it. Null when that is something else. */
export function mergePart({ node }: CarriedPart, rest: RootContent | undefined): List | Table | null {
  if (node.type === "list" && rest?.type === "list" && rest.ordered === node.ordered) {
    return {
      ...rest,
      start: node.start,
      spread: node.spread || rest.spread,
      children: [...node.children, ...rest.children],
    };
  }
  if (node.type === "table" && rest?.type === "table") {
    return { ...rest, children: [...node.children, ...rest.children.slice(1)] };
  }
  return null;
}
