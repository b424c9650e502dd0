const LONGEST_BLOCK = 10_000;
const LONGEST_COMMAND = 2000;

/** The environments that are formulas by themselves. Others, such as `document`, stay text. */
const ENVIRONMENT_NAME =
  "(?:align|alignat|gather|equation|aligned|alignedat|gathered|split|[dr]?cases|drcases|[pbBvV]?matrix|smallmatrix|subarray|d?array|CD)\\*?";
/** What begins a formula in lines of its own. */
const OPENER = new RegExp(`\\$\\$(?!\\$)|\\\\\\[|\\\\begin\\{(${ENVIRONMENT_NAME})\\}`, "y");
const LINE_OPENER = new RegExp(`^(?:[ \\t]*(?:>|[-*+][ \\t]|\\d{1,9}[.)][ \\t]))*[ \\t]*(?:${OPENER.source})`, "gm");

/** The marks of a formula: between them is its content. Those of an environment are part of the formula. */
export type FormulaMarks = { opener: string; closing: string; areKept: boolean };

/** What begins at `start`; null when no formula does. */
export function formulaMarks(source: string, start: number): FormulaMarks | null {
  OPENER.lastIndex = start;
  const match = OPENER.exec(source);
  if (!match) return null;
  const opener = match[0];
  if (opener === "$$") return { opener, closing: "$$", areKept: false };
  if (opener === "\\[") return { opener, closing: "\\]", areKept: false };
  return { opener, closing: `\\end{${match[1]}}`, areKept: true };
}

/**
 * Where the formula in lines of its own that opens at `start` has its closing mark; null when there is none, or when
 * other text stands on its last line (then it is one within a text).
 */
export function closesOnItsOwnLines(source: string, start: number): (FormulaMarks & { end: number }) | null {
  const marks = formulaMarks(source, start);
  if (!marks) return null;
  const { opener, closing } = marks;
  const end = closingMark(source, start, marks);
  if (end === null || end - start > LONGEST_BLOCK) return null;
  const content = source.slice(start + opener.length, end);
  if (content.trim() === "" || !mayHold(content, marks)) return null;
  const lineEnd = source.indexOf("\n", end);
  if (source.slice(end + closing.length, lineEnd < 0 ? undefined : lineEnd).trim() !== "") return null;
  return { ...marks, end };
}

/** Only a mark alone on its line holds a formula with empty lines together; "$$ is money" begins no formula. */
function mayHold(content: string, { areKept }: FormulaMarks): boolean {
  return (areKept ? /^[^\n\\&]*\n/ : /^[ \t]*\n/).test(content) || !/\n[ \t>]*\n/.test(content);
}

export type BegunFormulas = {
  /** The formula whose end has not arrived. */
  open: (FormulaMarks & { at: number }) | null;
  /** Where the last one ends whose end has. */
  closedUntil: number;
};

/** The formulas at the beginnings of lines of a text that grows. */
export function begunFormulas(source: string): BegunFormulas {
  let closedUntil = 0;
  LINE_OPENER.lastIndex = 0;
  for (let match = LINE_OPENER.exec(source); match; match = LINE_OPENER.exec(source)) {
    const opener = match[1] === undefined ? match[0].slice(-2) : `\\begin{${match[1]}}`;
    const contentStart = LINE_OPENER.lastIndex;
    const at = contentStart - opener.length;
    const marks = formulaMarks(source, at);
    if (!marks) continue;
    const end = closingMark(source, at, marks);
    const content = source.slice(contentStart, end ?? undefined);
    if (end !== null && (content.trim() === "" || !mayHold(content, marks))) {
      // What follows is read as if the mark were not there.
      LINE_OPENER.lastIndex = contentStart;
    } else if (end !== null) {
      closedUntil = end + marks.closing.length;
      LINE_OPENER.lastIndex = closedUntil;
    } else if (source.length - at <= LONGEST_BLOCK && mayHold(content, marks)) {
      return { open: { ...marks, at }, closedUntil };
    }
  }
  return { open: null, closedUntil };
}

/** Where the mark stands that closes what opens at `start`; environments may hold others of their name. */
export function closingMark(source: string, start: number, { opener, closing, areKept }: FormulaMarks): number | null {
  let index = source.indexOf(closing, start + opener.length);
  if (areKept) {
    let inner = source.indexOf(opener, start + opener.length);
    while (index >= 0 && inner >= 0 && inner < index && index - start < LONGEST_BLOCK) {
      inner = source.indexOf(opener, inner + opener.length);
      index = source.indexOf(closing, index + closing.length);
    }
    return index < 0 ? null : index;
  }
  // In TeX, \\ ends a line: the backslash of a mark must not be the second of two.
  while (index > start + opener.length && source[index - 1] === "\\") index = source.indexOf(closing, index + 1);
  return index < 0 ? null : index;
}

/** A formula within a text that a command begins; `end` is null while what ends it is missing, `closing` would be that. */
export type Command = { end: number | null; closing: string };

/** The formula that \ce{…} and \pu{…} of chemists or an environment make without further marks; null where none begins. */
export function commandAt(source: string, start: number): Command | null {
  const command = chemistryAt(source, start) ?? environmentAt(source, start);
  return command && (command.end ?? source.length) - start <= LONGEST_COMMAND ? command : null;
}

function environmentAt(source: string, start: number): Command | null {
  const marks = formulaMarks(source, start);
  if (!marks?.areKept) return null;
  const end = closingMark(source, start, marks);
  return { end: end === null ? null : end + marks.closing.length, closing: marks.closing };
}

function chemistryAt(source: string, start: number): Command | null {
  if (!/^\\(?:ce|pu)\{/.test(source.slice(start, start + 4))) return null;
  let depth = 0;
  for (let index = start + 3; index < source.length && index - start <= LONGEST_COMMAND; index++) {
    const char = source[index];
    if (char === "\n" && source[index + 1] === "\n") return null;
    if (char === "\\") index += 1;
    else if (char === "{") depth += 1;
    else if (char === "}" && --depth === 0) return { end: index + 1, closing: "}" };
  }
  return { end: null, closing: "}".repeat(depth) };
}

/**
 * Whether a text between two dollars is a formula, by what stands beside the markers: no space within them, no digit
 * behind them, as Pandoc has it; and nothing that looks like prices or shell variables.
 */
export function isPlausibleFormula(content: string, before: number | null, after: number | null): boolean {
  if (content === "" || /\s$/.test(content)) return false;
  if (after !== null && isDigit(after) && !content.startsWith("\\")) return false;
  const looksLikeTex = /[\\^_{}=<>+*]/.test(content);
  // US$5, 3$x$: a marker that touches a word opens a formula only when a command follows.
  if (before !== null && isWordCharacter(before) && !content.startsWith("\\")) return false;
  // $HOME/$USER, ($5)/($10)
  if (after !== null && isUpperOrUnderscore(after)) return false;
  if (content.length > 1 && /[/:(]$/.test(content)) return false;
  // $5 million and 10$
  if (!looksLikeTex && /^[\d.,]+\s*[a-z]{2,}/i.test(content)) return false;
  // Two sentences between two signs of money are no formula.
  return looksLikeTex || content.split(/\s+/).filter((word) => /^[a-z]{3,}[.,;:]?$/i.test(word)).length < 3;
}

function isDigit(code: number): boolean {
  return code >= 48 && code <= 57;
}

function isUpperOrUnderscore(code: number): boolean {
  return (code >= 65 && code <= 90) || code === 95;
}

function isWordCharacter(code: number): boolean {
  return isDigit(code) || isUpperOrUnderscore(code) || (code >= 97 && code <= 122);
}
