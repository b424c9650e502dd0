import type { Html, Nodes, Parents, PhrasingContent, RootContent } from "mdast";
import { INLINE_TAG, isInlineElement } from "./html-rules";

/** More levels than any text has; deeper tags stay text, so that none can exhaust the stack. */
const DEEPEST = 12;

type Tag = { name: string; isClosing: boolean; isPlain: boolean };

function tagOf(node: Html): Tag | null {
  const [, slash, name = "", rest = ""] = /^<(\/?)([a-z][^\s/>]*)([\s\S]*)>$/i.exec(node.value) ?? [];
  if (name === "" || rest.endsWith("/")) return null;
  return { name: name.toLowerCase(), isClosing: slash === "/", isPlain: rest.trim() === "" };
}

/** A tag alone on its line makes a block of HTML by Markdown's rule, and a text here. */
const BEGINS_TEXT = new RegExp(`^${INLINE_TAG.source}[ \\t]*\\n`, "i");

/** Makes elements of the pairs of tags in all texts of a tree. `read` reads a text that is one block. */
export function pairTags(node: Nodes, read: (text: string) => RootContent[]): void {
  if (!("children" in node)) return;
  node.children.forEach((child, place) => {
    if (child.type === "html" && !holdsText(node) && BEGINS_TEXT.test(child.value)) {
      const [text, ...more] = read(child.value.replaceAll(/\s*\n\s*/g, " "));
      if (text?.type !== "paragraph" || more.length > 0) return;
      node.children[place] = { ...text, ...(child.position ? { position: child.position } : {}) };
      return;
    }
    pairTags(child, read);
  });
  if (holdsText(node) && node.children.some((child) => child.type === "html")) {
    node.children = paired(node.children as PhrasingContent[]) as typeof node.children;
  }
}

function holdsText(node: Parents): boolean {
  return ![
    "root",
    "blockquote",
    "list",
    "listItem",
    "footnoteDefinition",
    "table",
    "tableRow",
    "disclosureLine",
  ].includes(node.type);
}

type Pair = { end: number; name: string; isKnown: boolean };

/** Which child closes which; pairs lie within each other or apart. */
function findPairs(children: readonly PhrasingContent[]): Map<number, Pair> {
  const pairs = new Map<number, Pair>();
  const open: { tag: Tag; at: number }[] = [];
  const counts = new Map<string, number>();
  const count = (name: string, change: number) => counts.set(name, (counts.get(name) ?? 0) + change);
  children.forEach((child, place) => {
    const tag = child.type === "html" ? tagOf(child) : null;
    if (!tag) return;
    if (!tag.isClosing) {
      open.push({ tag, at: place });
      count(tag.name, 1);
      return;
    }
    if (!counts.get(tag.name)) return;
    for (let last = open.pop(); last; last = open.pop()) {
      count(last.tag.name, -1);
      if (last.tag.name !== tag.name) continue;
      const isKnown = last.tag.isPlain && tag.isPlain && isInlineElement(tag.name);
      pairs.set(last.at, { end: place, name: tag.name, isKnown });
      return;
    }
  });
  return pairs;
}

function paired(children: readonly PhrasingContent[]): PhrasingContent[] {
  const pairs = findPairs(children);
  const root: PhrasingContent[] = [];
  const open: { end: number; content: PhrasingContent[] }[] = [];
  // What stands in an element that is not known is its source: XML stays as it is.
  let sourceUntil = -1;
  children.forEach((child, place) => {
    const content = open.at(-1)?.content ?? root;
    if (place <= sourceUntil) {
      content.push(child);
      return;
    }
    if (open.at(-1)?.end === place) {
      open.pop();
      return;
    }
    const pair = pairs.get(place);
    if (pair?.isKnown && open.length < DEEPEST) {
      const element: PhrasingContent = { type: "htmlElement", name: pair.name, children: [] };
      content.push(element);
      open.push({ end: pair.end, content: element.children });
      return;
    }
    if (pair) sourceUntil = pair.end;
    content.push(child);
  });
  return root;
}
