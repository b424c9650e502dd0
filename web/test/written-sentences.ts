/** Finds what a person would read and what is written in the code instead of in a catalogue. */
import { type ESTree, parseSync, Visitor } from "vite";

// Attributes and properties whose text is shown or spoken; of others, sentences are found by their looks.
const SHOWN = new Set(
  [
    "aria-description",
    "aria-label",
    "aria-placeholder",
    "aria-roledescription",
    "aria-valuetext",
    "alt",
    "caption",
  ].concat(["description", "heading", "hint", "label", "placeholder", "rowTitle", "sentence", "text", "title"]),
);
// Functions that show or speak their first argument.
const SAYING = new Set(["toast", "toast.error", "toast.success", "sayPolitely", "window.confirm"]);
// What stands in these elements is typed or pressed, and the same in every language.
const LITERAL_ELEMENTS = new Set(["code", "kbd", "Kbd"]);
const LETTER = /\p{L}/u;
// Several words that begin with a capital letter, or end as sentences do.
const PHRASE = /^[“"(]?\p{Lu}\p{Ll}*['’]?\p{Ll}* .*\p{L}|\p{Ll} \p{Ll}.*[.?!…]$/u;

/** Returns the texts that stand in a module's code and that a person reads. */
export function writtenSentences(file: string, text: string): string[] {
  const { program, errors } = parseSync(file, text);
  if (errors.length > 0) throw new Error(`${file}: ${errors[0]?.message}`);
  const found = new Set<string>();
  const addAll = (texts: readonly string[]) => {
    for (const each of texts) if (LETTER.test(each)) found.add(each.trim());
  };
  new Visitor({
    JSXElement: (node) => {
      if (!LITERAL_ELEMENTS.has(nameOf(node.openingElement.name))) addAll(textsOfChildren(node.children));
    },
    JSXFragment: (node) => addAll(textsOfChildren(node.children)),
    JSXAttribute: (node) => {
      if (!SHOWN.has(nameOf(node.name)) || node.value === null) return;
      addAll(node.value.type === "JSXExpressionContainer" ? textsOf(node.value.expression) : textsOf(node.value));
    },
    Property: (node) => {
      if (node.key.type === "Identifier" && SHOWN.has(node.key.name)) addAll(textsOf(node.value));
    },
    CallExpression: (node) => {
      const [first] = node.arguments;
      if (first !== undefined && SAYING.has(calleeOf(node.callee))) addAll(textsOf(first));
    },
    Literal: (node) => {
      if (typeof node.value === "string" && PHRASE.test(node.value.trim())) found.add(node.value.trim());
    },
    TemplateLiteral: (node) => {
      const whole = node.quasis.map((quasi) => quasi.value.cooked ?? "").join("x");
      if (PHRASE.test(whole.trim())) addAll(textsOf(node));
    },
  }).visit(program);
  return [...found];
}

function textsOfChildren(children: readonly ESTree.JSXChild[]): string[] {
  return children.flatMap((child) => {
    if (child.type === "JSXText") return [child.value];
    return child.type === "JSXExpressionContainer" ? textsOf(child.expression) : [];
  });
}

/** The texts that an expression may come to, as far as they stand in it. */
function textsOf(node: ESTree.Node): string[] {
  switch (node.type) {
    case "Literal":
      return typeof node.value === "string" ? [node.value] : [];
    case "TemplateLiteral":
      return [...node.quasis.map((quasi) => quasi.value.cooked ?? ""), ...node.expressions.flatMap(textsOf)];
    case "ConditionalExpression":
      return [...textsOf(node.consequent), ...textsOf(node.alternate)];
    case "LogicalExpression":
    case "BinaryExpression":
      return node.type === "LogicalExpression" || node.operator === "+"
        ? [...textsOf(node.left), ...textsOf(node.right)]
        : [];
    case "ParenthesizedExpression":
    case "TSAsExpression":
    case "TSSatisfiesExpression":
      return textsOf(node.expression);
    default:
      return [];
  }
}

function nameOf(node: ESTree.Node): string {
  return node.type === "JSXIdentifier" ? node.name : "";
}

function calleeOf(node: ESTree.Node): string {
  if (node.type === "Identifier") return node.name;
  if (node.type !== "MemberExpression" || node.property.type !== "Identifier") return "";
  return `${calleeOf(node.object)}.${node.property.name}`;
}
