import { begunTagLength, INLINE_TAG } from "./html-rules";
import { begunFormulas, commandAt } from "./math-rules";

/**
 * While an answer is written, its end is often half a thing: **bold without its end, half a link, the first line of a
 * table. Here such ends are closed, or held back until they can be told, so that what is shown looks calm.
 */

/** Stands within formulas that are still being written; those are shown as their source. */
export const PENDING_FORMULA = "\uE000";
/** The address of links whose address is still being written. */
export const PENDING_ADDRESS = "pending:";

export type ClosedEnds = {
  text: string;
  /** Before this the text is as it was. */
  editedFrom: number;
};

/** A line's markers of quotations and list items. */
const CONTAINERS = /^[ \t]*(?:(?:>|[-*+]|\d{1,9}[.)])[ \t]+|>)*/;
const FENCE_LINE = /^(?:`{3,}[^`]*|~{3,}.*)$/;
/** What may become the marker of a heading, a list item, a fence, a rule or a formula once more of it is there. */
const BEGUN_MARKER =
  /^(?:#{1,6}|[-+*_]{1,2}|\d{1,9}[.)]?|`{1,3}[^`]*|~{1,3}|\$|\\(?:b(?:e(?:g(?:i(?:n(?:\{[a-zA-Z]*\*?)?)?)?)?)?)?)$/;
/** What may become the closing mark of a formula. */
const BEGUN_CLOSING = /[\s\\$]+$|\s*\\e(?:nd?(?:\{[a-zA-Z]*\*?)?)?$/;
/** A command that may come to begin a formula. */
const BEGUN_COMMAND = /\\(?:b(?:e(?:g(?:i(?:n(?:\{[a-zA-Z]*\*?)?)?)?)?)?|ce?|pu?)$/;

export function closeOpenEnds(source: string): ClosedEnds {
  const lineStart = source.lastIndexOf("\n") + 1;
  const line = source.slice(lineStart);
  const content = line.replace(CONTAINERS, "");
  const heldLine = { text: source.slice(0, lineStart), editedFrom: lineStart };

  const fence = openFence(source.slice(0, lineStart));
  const { open: formula, closedUntil } = begunFormulas(source);
  if (fence !== null && fence >= closedUntil && !(formula && formula.at < fence)) {
    return /^[`~]{1,2}$/.test(content) ? heldLine : unchanged(source);
  }
  if (formula) {
    const contentStart = formula.at + formula.opener.length;
    const tex = source.slice(contentStart).replace(BEGUN_CLOSING, "");
    const text = source.slice(0, formula.at);
    // Without its end it may yet belong to the paragraph right above.
    const editedFrom = Math.max(0, source.lastIndexOf("\n", formula.at) - 1);
    if (tex.trim() === "") return { text, editedFrom };
    return { text: `${source.slice(0, contentStart)}${tex}${PENDING_FORMULA}${formula.closing}`, editedFrom };
  }

  return (
    (closedUntil > lineStart ? null : (closeTable(source, lineStart) ?? holdLine(source, lineStart, line, content))) ??
    closeText(source, closedUntil)
  );
}

/** Holds back the last line when it may become something else than what it looks like. */
function holdLine(source: string, lineStart: number, line: string, content: string): ClosedEnds | null {
  const heldLine = { text: source.slice(0, lineStart), editedFrom: lineStart };
  const begun = BEGUN_MARKER.test(content) && !(content.startsWith("`") && /^`{1,2}[^`]/.test(content));
  if (begun || (content === "" && /^[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]*$/.test(line))) return heldLine;
  // Under a line of text, signs of equality and dashes would make a heading of it.
  const previous = source.slice(source.lastIndexOf("\n", lineStart - 2) + 1, Math.max(0, lineStart - 1));
  if (/^[ \t]*(?:=+|-+)[ \t]*$/.test(line) && previous.trim() !== "") return heldLine;
  return null;
}

/** Closes what is open in the text that the source ends in. */
function closeText(source: string, closedUntil: number): ClosedEnds {
  const held = source.slice(0, source.length - begunTagLength(source));
  const from = Math.max(regionStart(held), Math.min(closedUntil, held.length));
  const closed = closeInline(held.slice(from));
  if (closed === null) return held === source ? unchanged(source) : { text: held, editedFrom: held.length };
  return { text: held.slice(0, from) + closed.text, editedFrom: from + closed.editedFrom };
}

function unchanged(source: string): ClosedEnds {
  return { text: source, editedFrom: source.length };
}

/** Where the fenced code of a list item or quotation begins that the complete lines end in; null when they do not. */
function openFence(lines: string): number | null {
  if (!lines.includes("```") && !lines.includes("~~~")) return null;
  let open: { marker: string; at: number } | null = null;
  let at = 0;
  for (const line of lines.split("\n")) {
    const content: string = line.replace(open ? /^[ \t>]*/ : CONTAINERS, "");
    const marker: string | null = FENCE_LINE.test(content) ? (/^(?:`+|~+)/.exec(content)?.[0] ?? null) : null;
    if (open === null) open = marker ? { marker, at } : null;
    else if (marker?.startsWith(open.marker) && marker === content.trim()) open = null;
    at += line.length + 1;
  }
  return open?.at ?? null;
}

/** A table begins with its head and a row of dashes; until both are there, it would look like text full of bars. */
function closeTable(source: string, lineStart: number): ClosedEnds | null {
  const lines: { text: string; start: number }[] = [];
  let end = source.length;
  let start = lineStart;
  if (start === end && start > 0) {
    // The last line has just been completed.
    end = start - 1;
    start = source.lastIndexOf("\n", end - 1) + 1;
  }
  while (lines.length < 3 && source.slice(start, end).replace(CONTAINERS, "").startsWith("|")) {
    lines.unshift({ text: source.slice(start, end), start });
    if (start === 0) break;
    end = start - 1;
    start = source.lastIndexOf("\n", end - 1) + 1;
  }
  const [head, dashes, more] = lines;
  if (!head || more) return null;
  if (!dashes) return { text: source.slice(0, head.start), editedFrom: head.start };
  const row = dashes.text.replace(CONTAINERS, "");
  if (!/^[|:\- \t]*$/.test(row)) return null;
  const columns = head.text
    .trim()
    .replace(/^.*?\|/, "")
    .replace(/\|$/, "")
    .split(/(?<!\\)\|/).length;
  const prefix = dashes.text.slice(0, dashes.text.length - row.length);
  const begun = row
    .trim()
    .replace(/^\||\|$/g, "")
    .split("|");
  const cells = Array.from({ length: columns }, (_, index) => {
    const cell = begun[index]?.trim() ?? "";
    return /^:?-+:?$/.test(cell) ? cell : "---";
  });
  return { text: `${source.slice(0, dashes.start)}${prefix}|${cells.join("|")}|`, editedFrom: head.start };
}

/** Where the paragraph, list item, heading or cell begins that the text ends in. */
function regionStart(source: string): number {
  const lines = source.split("\n");
  let start = source.length;
  for (let index = lines.length - 1; index >= 0; index--) {
    const line = lines[index] ?? "";
    if (line.trim() === "" && index < lines.length - 1) return start;
    start -= line.length;
    const marker = CONTAINERS.exec(line)?.[0].length ?? 0;
    const content = line.slice(marker);
    if (content.startsWith("|")) return start + Math.max(marker, line.lastIndexOf("|") + 1);
    if (/[-*+.)>]/.test(line.slice(0, marker)) || /^#{1,6} /.test(content)) return start + marker;
    start = Math.max(0, start - 1);
  }
  return 0;
}

const MOST_OPEN = 12;

type Open = { marker: string; at: number };

/** Closes what is open at the end of a paragraph's text; null when nothing is. */
function closeInline(text: string): ClosedEnds | null {
  const open: Open[] = [];
  let index = 0;
  while (index < text.length) {
    const char = text[index] ?? "";
    if (char === "\\") {
      const next = text[index + 1];
      if (next === undefined || BEGUN_COMMAND.test(text.slice(index, index + 24))) return finish(text.slice(0, index));
      const command = commandAt(text, index);
      if (command) {
        if (command.end === null) return pendingFormula(index, 0, command.closing);
        index = command.end;
        continue;
      }
      if (next !== "(" && next !== "[") {
        index += 2;
        continue;
      }
      const closing = next === "(" ? "\\)" : "\\]";
      const end = text.indexOf(closing, index + 2);
      if (end < 0) return pendingFormula(index, 2, closing);
      index = end + 2;
    } else if (char === "`") {
      const run = runLength(text, index);
      const end = closingRun(text, index + run, run);
      if (end < 0) {
        const content = text.slice(index + run).replace(/`+$/, "");
        if (content.trim() === "") return finish(text.slice(0, index));
        return finish(`${text.slice(0, index + run)}${content}${"`".repeat(run)}`, index + run + content.length);
      }
      index = end + run;
    } else if (char === "$") {
      const run = runLength(text, index);
      const end = text.indexOf(run >= 2 ? "$$" : "$", index + run);
      if (end >= 0) {
        index =
          run >= 2
            ? end + 2
            : /\s/.test(text[index + 1] ?? " ") || /\s/.test(text[end - 1] ?? "")
              ? index + 1
              : end + 1;
      } else if (run >= 2) {
        return pendingFormula(index, 2, "$$");
      } else {
        const content = text.slice(index + 1);
        if (/^[^\s]/.test(content) && /[\\^_{=]/.test(content)) return pendingFormula(index, 1, "$");
        index += 1;
      }
    } else if (char === "*" || char === "_" || (char === "~" && text[index + 1] === "~")) {
      const run = runLength(text, index);
      mark(char, run, index);
      index += run;
    } else if (char === "<") {
      INLINE_TAG.lastIndex = index;
      const [tag = char, slash, name] = INLINE_TAG.exec(text) ?? [];
      const opening = slash ? open.findLastIndex((each) => each.marker === `<${name}>`) : -1;
      if (opening >= 0) open.splice(opening);
      else if (tag !== char && !slash) open.push({ marker: tag, at: index });
      index += tag.length;
    } else if (char === "[") {
      open.push({ marker: "[", at: index });
      index += 1;
    } else if (char === "]") {
      const bracket = open.findLastIndex((each) => each.marker === "[");
      if (bracket >= 0) {
        open.splice(bracket);
        if (text[index + 1] === "(") {
          const end = linkEnd(text, index + 2);
          if (end < 0) return finish(`${text.slice(0, index)}](${PENDING_ADDRESS})`, index);
          index = end;
        }
      }
      index += 1;
    } else {
      index += 1;
    }
  }
  return open.length > 0 ? finish(text) : null;

  /** Takes note of a run of emphasis markers: it closes what is open, or opens. */
  function mark(char: string, length: number, at: number): void {
    const before = text[at - 1] ?? " ";
    const after = text[at + length] ?? "";
    const wordBefore = /[\p{L}\p{N}]/u.test(before);
    const wordAfter = /[\p{L}\p{N}]/u.test(after);
    let left = length;
    if (!/\s/.test(before) && !(char === "_" && wordAfter)) {
      for (let top = open.at(-1); left > 0 && top?.marker[0] === char; top = open.at(-1)) {
        const used = Math.min(left, top.marker.length);
        left -= used;
        if (used === top.marker.length) open.pop();
        else open[open.length - 1] = { marker: char.repeat(top.marker.length - used), at: top.at };
      }
    }
    if (left > 0 && !/^\s/.test(after) && !(char === "_" && wordBefore)) {
      open.push({ marker: char.repeat(left), at });
    }
  }

  /** The text with the ends of all that is open; markers with nothing behind them are left out. */
  function finish(kept: string, from?: number): ClosedEnds {
    let result = kept.trimEnd();
    // Nobody writes so; to close all of them could take the parser minutes.
    if (open.length > MOST_OPEN) return { text: result, editedFrom: Math.min(from ?? result.length, result.length) };
    let editedFrom = Math.min(from ?? result.length, result.length);
    for (const { marker, at } of open.toReversed()) {
      if (marker === "[") {
        const content = result.slice(at + 1);
        const image = result[at - 1] === "!";
        if (content === "") {
          result = result.slice(0, image ? at - 1 : at).trimEnd();
          editedFrom = Math.min(editedFrom, result.length);
        } else if (/^\p{L}/u.test(content) && content.length > 1 && !content.includes("\n")) {
          result += `](${PENDING_ADDRESS})`;
        }
      } else if (at + marker.length >= result.length) {
        result = result.slice(0, at).trimEnd();
        editedFrom = Math.min(editedFrom, result.length);
      } else {
        result += marker.replace("<", "</");
      }
    }
    return { text: result, editedFrom };
  }

  function pendingFormula(at: number, opener: number, closing: string): ClosedEnds {
    const content = text.slice(at + opener).replace(/[\s\\$]+$/, "");
    if (content === "") return finish(text.slice(0, at));
    return finish(`${text.slice(0, at + opener)}${content}${PENDING_FORMULA}${closing}`, at + opener + content.length);
  }
}

function runLength(text: string, from: number): number {
  const char = text[from];
  let end = from + 1;
  while (text[end] === char) end += 1;
  return end - from;
}

/** Where the next run of exactly this many backticks begins. */
function closingRun(text: string, from: number, length: number): number {
  let index = text.indexOf("`", from);
  while (index >= 0) {
    const run = runLength(text, index);
    if (run === length) return index;
    index = text.indexOf("`", index + run);
  }
  return -1;
}

/** Where the parenthesis closes that holds a link's address; -1 when it has not arrived. */
function linkEnd(text: string, from: number): number {
  let depth = 1;
  for (let index = from; index < text.length; index++) {
    const char = text[index];
    if (char === "\\") index += 1;
    else if (char === "\n" && text[index + 1] === "\n") return from;
    else if (char === "(") depth += 1;
    else if (char === ")" && --depth === 0) return index;
  }
  return -1;
}
