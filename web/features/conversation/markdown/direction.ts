import type { Nodes, Table } from "mdast";

const STRONG = /[\p{L}\p{Nl}]/u;
const RIGHT_TO_LEFT =
  /[\p{sc=Arab}\p{sc=Hebr}\p{sc=Syrc}\p{sc=Thaa}\p{sc=Nkoo}\p{sc=Adlm}\p{sc=Mand}\p{sc=Samr}\p{sc=Rohg}]/u;

type Direction = "rtl" | "ltr";

export function directionOfText(text: string): Direction | null {
  const letter = STRONG.exec(text)?.[0];
  if (letter === undefined) return null;
  return RIGHT_TO_LEFT.test(letter) ? "rtl" : "ltr";
}

/** Whether a link's text is an address itself. */
export function isBareAddress(node: Nodes): boolean {
  if (node.type !== "link") return false;
  const [text] = node.children;
  return text?.type === "text" && /^(?:https?:\/\/|www\.|mailto:)/i.test(text.value);
}

/** That of the first letter in a node's text; code, formulas and addresses have none. */
function directionOf(node: Nodes): Direction | null {
  if (node.type === "text") return directionOfText(node.value);
  if (node.type === "table") return directionOfTable(node);
  if (isBareAddress(node)) return null;
  if (!("children" in node)) return null;
  for (const child of node.children) {
    const direction = directionOf(child);
    if (direction) return direction;
  }
  return null;
}

/** That of most cells in its first rows: names of columns are often those of a program. */
function directionOfTable(table: Table): Direction | null {
  const cells = table.children.slice(0, 2).flatMap((row) => row.children.map(directionOf));
  const count = (direction: Direction) => cells.filter((each) => each === direction).length;
  const [right, left] = [count("rtl"), count("ltr")];
  return right + left === 0 ? null : right >= left ? "rtl" : "ltr";
}

/**
 * The `dir` of an element that holds others. With "auto" alone a browser passes over children that have a `dir` of their
 * own, and so would never find a word in a list or quotation.
 */
export function dirOf(...nodes: readonly Nodes[]): "rtl" | "auto" {
  for (const node of nodes) {
    const direction = directionOf(node);
    if (direction) return direction === "rtl" ? "rtl" : "auto";
  }
  return "auto";
}
