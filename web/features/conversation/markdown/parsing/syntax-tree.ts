import type { Heading, Nodes, RootContent } from "mdast";
import { fromMarkdown } from "mdast-util-from-markdown";
import { gfmFromMarkdown } from "mdast-util-gfm";
import { cjkFriendlyExtension } from "micromark-extension-cjk-friendly";
import { gfmStrikethroughCjkFriendly } from "micromark-extension-cjk-friendly-gfm-strikethrough";
import { gfm } from "micromark-extension-gfm";
import { addressSyntax, addressTree } from "./address-syntax";
import { pairTags } from "./html-elements";
import { htmlSyntax, htmlTree } from "./html-syntax";
import { mathSyntax, mathTree } from "./math-syntax";
import { hidePipes, showPipes } from "./table-pipes";

declare module "mdast" {
  interface HeadingData {
    /** The level among the page's headings: never one that skips another. */
    level?: 2 | 3 | 4 | 5 | 6;
  }
}

/** GitHub's Markdown, whose emphasis also works beside the punctuation of scripts that have no spaces between words. */
const SYNTAX = [
  gfm({ singleTilde: false }),
  cjkFriendlyExtension(),
  gfmStrikethroughCjkFriendly({ singleTilde: false }),
];
const TREE = gfmFromMarkdown();

/** The top-level blocks of a Markdown text: GitHub's Markdown, formulas, and elements of HTML that a list allows. */
export function parseBlocks(source: string): RootContent[] {
  const hidden = hidePipes(source);
  const tree = fromMarkdown(hidden, {
    extensions: [...SYNTAX, addressSyntax(hidden), mathSyntax(hidden), htmlSyntax(hidden)],
    mdastExtensions: [addressTree, TREE, mathTree, htmlTree],
  });
  if (hidden !== source) showPipes(tree);
  pairTags(tree, parseBlocks);
  return tree.children;
}

/**
 * Gives the headings in a block their levels. An answer stands below the page's own heading, so that its first one is of
 * the second level whatever its author wrote, and none skips a level. `above` are the depths of the headings that the
 * next one may stand below; returned is what it is after the block.
 */
export function levelHeadings(node: Nodes, above: readonly number[]): readonly number[] {
  if (node.type === "heading") {
    const open = above.filter((depth) => depth < node.depth);
    const level = Math.min(6, open.length + 2) as NonNullable<NonNullable<Heading["data"]>["level"]>;
    node.data = { ...node.data, level };
    return [...open, node.depth];
  }
  // Only quotations and lists can hold further headings.
  if (node.type !== "blockquote" && node.type !== "list" && node.type !== "listItem") return above;
  let below = above;
  for (const child of node.children) below = levelHeadings(child, below);
  return below;
}
