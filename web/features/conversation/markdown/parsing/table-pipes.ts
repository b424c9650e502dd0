import type { Nodes } from "mdast";
import { isPlausibleFormula } from "./math-rules";

/**
 * Pipes within formulas of tables. GitHub's rules end a cell at each pipe, so that $|x|$ would be three. Where a row has
 * too many cells so, and exactly as many as the table's columns otherwise, its formulas' pipes are taken for another
 * character while the text is read.
 */

/** Stands for such a pipe; as long as one, so that places in the text stay what they are. */
const PIPE = "\uE001";
const DASHES = /^\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const CONTAINERS = /^(?:[ \t]*(?:>|[-*+][ \t]|\d{1,9}[.)][ \t]))*[ \t]*/;
/** What opens a formula or code, or keeps the next character from doing so. */
const MARK = /^(?:`+|\$\$?|\\.)/;
const LONGEST_MARK = 20;
const CLOSINGS: Readonly<Record<string, string>> = { $: "$", $$: "$$", "\\(": "\\)", "\\[": "\\]" };

/** The text with other characters for the pipes within formulas of its tables. */
export function hidePipes(source: string): string {
  if (!source.includes("|") || !/[$\\`]/.test(source) || source.includes(PIPE)) return source;
  const lines = source.split("\n");
  let columns = 0;
  for (let index = 1; index < lines.length; index++) {
    const row = withoutContainers(lines[index] ?? "");
    const previous = lines[index - 1] ?? "";
    if (columns === 0 && row.includes("|") && DASHES.test(row) && previous.includes("|")) {
      columns = countCells(row);
      lines[index - 1] = hideInRow(previous, columns, false);
    } else if (row.trim() === "") {
      columns = 0;
    } else if (columns > 0) {
      lines[index] = hideInRow(lines[index] ?? "", columns, index === lines.length - 1);
    }
  }
  return lines.join("\n");
}

function withoutContainers(line: string): string {
  return line.slice(CONTAINERS.exec(line)?.[0].length ?? 0);
}

/** `isLast` is a row that may still be growing: it need not have all its cells. */
function hideInRow(line: string, columns: number, isLast: boolean): string {
  if (countCells(withoutContainers(line)) <= columns) return line;
  // GitHub's rules part code as well. Where they leave too many cells, that cannot have been meant.
  for (const withCode of [false, true]) {
    const hidden = hideInFormulas(line, withCode);
    const cells = countCells(withoutContainers(hidden));
    if (hidden !== line && (cells === columns || (isLast && cells < columns))) return hidden;
  }
  return line;
}

function countCells(row: string): number {
  const inner = row
    .trim()
    .replace(/^\|/, "")
    .replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).length;
}

function hideInFormulas(line: string, withCode: boolean): string {
  let result = "";
  let index = 0;
  // Marks that close nothing any more.
  const missing = new Set<string>();
  while (index < line.length) {
    const mark = MARK.exec(line.slice(index, index + LONGEST_MARK))?.[0] ?? "";
    const closing = CLOSINGS[mark] ?? (mark.startsWith("`") ? mark : null);
    const contentStart = index + Math.max(1, mark.length);
    const end = closing === null || missing.has(closing) ? -1 : line.indexOf(closing, contentStart);
    if (closing !== null && end < 0) missing.add(closing);
    if (closing === null || end < 0 || !isFormula(line, mark, index, end)) {
      result += line.slice(index, contentStart);
      index = contentStart;
      continue;
    }
    const until = end + closing.length;
    const whole = line.slice(index, until);
    result += mark.startsWith("`") && !withCode ? whole : whole.replaceAll(/(?<!\\)\|/g, PIPE);
    index = until;
  }
  return result;
}

function isFormula(line: string, mark: string, start: number, end: number): boolean {
  const content = line.slice(start + mark.length, end);
  if (mark !== "$") return content.trim() !== "";
  const before = start > 0 ? line.charCodeAt(start - 1) : null;
  const after = end + 1 < line.length ? line.charCodeAt(end + 1) : null;
  return !/^\s/.test(content) && isPlausibleFormula(content, before, after);
}

/** Gives the nodes of such a text their pipes back. */
export function showPipes(node: Nodes): void {
  for (const [name, value] of Object.entries(node)) {
    if (typeof value === "string" && value.includes(PIPE)) Object.assign(node, { [name]: value.replaceAll(PIPE, "|") });
  }
  if ("children" in node) node.children.forEach(showPipes);
}
