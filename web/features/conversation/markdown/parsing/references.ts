import type { Definition, FootnoteDefinition, Nodes } from "mdast";

/** What links and footnotes of a text refer to. */
export type References = {
  definitions: ReadonlyMap<string, Definition>;
  /** The footnotes in the order of their first mention. */
  footnotes: readonly FootnoteDefinition[];
  /** The number of a footnote. */
  numbers: ReadonlyMap<string, number>;
};

const DEFINITION = /^[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*\[[^\]\n]+\]:/m;

/** Whether a text may define what other parts of it refer to. */
export function hasReferences(text: string): boolean {
  return DEFINITION.test(text);
}

export function collectReferences(nodes: readonly Nodes[]): References {
  const definitions = new Map<string, Definition>();
  const notes = new Map<string, FootnoteDefinition>();
  const mentioned: string[] = [];
  const visit = (node: Nodes): void => {
    if (node.type === "definition") {
      if (!definitions.has(node.identifier)) definitions.set(node.identifier, node);
    } else if (node.type === "footnoteReference") {
      if (!mentioned.includes(node.identifier)) mentioned.push(node.identifier);
    } else if (node.type === "footnoteDefinition" && !notes.has(node.identifier)) {
      notes.set(node.identifier, node);
    }
    if ("children" in node) node.children.forEach(visit);
  };
  nodes.forEach(visit);
  const footnotes = mentioned.flatMap((identifier) => notes.get(identifier) ?? []);
  const numbers = new Map(footnotes.map((note, index) => [note.identifier, index + 1]));
  return { definitions, footnotes, numbers };
}
