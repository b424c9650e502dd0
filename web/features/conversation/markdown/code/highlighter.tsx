import type { LanguageFn } from "highlight.js";
import { createLowlight } from "lowlight";
import type { ReactNode } from "react";

const lowlight = createLowlight();

type Node = ReturnType<typeof lowlight.highlight>["children"][number];

export function addGrammar(name: string, grammar: LanguageFn): void {
  if (!lowlight.registered(name)) lowlight.register(name, grammar);
}

/** The code with its parts in spans of highlight.js's classes. */
export function highlight(language: string, code: string): ReactNode {
  return lowlight.highlight(language, code).children.map(toReact);
}

function toReact(node: Node, key: number): ReactNode {
  if (node.type === "text") return node.value;
  if (node.type !== "element") return null;
  const classes = node.properties.className;
  return (
    <span key={key} className={Array.isArray(classes) ? classes.join(" ") : undefined}>
      {node.children.map(toReact)}
    </span>
  );
}
