const LONGEST_BLOCK = 10_000;

/**
 * Where the formula in lines of its own that opens at `start` has its closing marker; null when there is none, or when
 * other text stands on its last line (then it is one within a text).
 */
export function closesOnItsOwnLines(source: string, start: number): number | null {
  const opener = source.slice(start, start + 2);
  if (opener !== "$$" && opener !== "\\[") return null;
  if (opener === "$$" && source[start + 2] === "$") return null;
  const end = closingMarker(source, start + 2, opener === "$$" ? "$$" : "\\]");
  if (end === null || end - start > LONGEST_BLOCK) return null;
  const content = source.slice(start + 2, end);
  if (content.trim() === "" || !mayHold(content)) return null;
  const lineEnd = source.indexOf("\n", end);
  if (source.slice(end + 2, lineEnd < 0 ? undefined : lineEnd).trim() !== "") return null;
  return end;
}

/** Only a marker alone on its line holds a formula with empty lines together; "$$ is money" begins no formula. */
function mayHold(content: string): boolean {
  return /^[ \t]*\n/.test(content) || !/\n[ \t>]*\n/.test(content);
}

const LINE_OPENER = /^(?:[ \t]*(?:>|[-*+][ \t]|\d{1,9}[.)][ \t]))*[ \t]*(\$\$(?!\$)|\\\[)/gm;

export type BegunFormulas = {
  /** The formula whose end has not arrived. */
  open: { at: number; closing: string } | null;
  /** Where the last one ends whose end has. */
  closedUntil: number;
};

/** The formulas at the beginnings of lines of a text that grows. */
export function begunFormulas(source: string): BegunFormulas {
  let closedUntil = 0;
  LINE_OPENER.lastIndex = 0;
  for (let match = LINE_OPENER.exec(source); match; match = LINE_OPENER.exec(source)) {
    const at = LINE_OPENER.lastIndex - 2;
    const closing = match[1] === "$$" ? "$$" : "\\]";
    const end = closingMarker(source, at + 2, closing);
    const content = source.slice(at + 2, end ?? undefined);
    if (end !== null && (content.trim() === "" || !mayHold(content))) {
      // What follows is read as if the marker were not there.
      LINE_OPENER.lastIndex = at + 2;
    } else if (end !== null) {
      closedUntil = end + 2;
      LINE_OPENER.lastIndex = closedUntil;
    } else if (source.length - at <= LONGEST_BLOCK && mayHold(content)) {
      return { open: { at, closing }, closedUntil };
    }
  }
  return { open: null, closedUntil };
}

function closingMarker(source: string, from: number, marker: string): number | null {
  let index = source.indexOf(marker, from);
  // In TeX, \\ ends a line: the backslash of a marker must not be the second of two.
  while (index > from && source[index - 1] === "\\") index = source.indexOf(marker, index + 1);
  return index < 0 ? null : index;
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
