import type { Nodes, Parents, Root, Text } from "mdast";
import type { Extension as TreeExtension } from "mdast-util-from-markdown";
import type { Code, Construct, Extension, State, TokenizeContext, Tokenizer } from "micromark-util-types";

// The tokens of GitHub's bare addresses.
declare module "micromark-util-types" {
  interface TokenTypeMap {
    literalAutolink: "literalAutolink";
    literalAutolinkHttp: "literalAutolinkHttp";
    literalAutolinkWww: "literalAutolinkWww";
  }
}

/**
 * Bare addresses in texts that have no spaces between words. GitHub's rules end an address at a space, so that one before
 * "。" would go on through the sentence behind it. Here it ends at the punctuation of such scripts; addresses beside none
 * are left to GitHub's rules.
 */

const EAST_ASIAN = /[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Hangul}\p{sc=Bopomofo}\u3000-\u303F\uFF00-\uFFEF]/u;
/** What may begin an address, and the most that it may hold. */
const RUN = /(?:https?:\/\/|www\.)[^\s<|]{1,2000}/iy;
const ADDRESS = /^(?:https?:\/\/|www\.)[\p{L}\p{N}]/iu;
const BEGIN = /https?:\/\/|www\./gi;
/** Punctuation beyond ASCII ends an address. Dots in the middle and short dashes stand in titles, and so in addresses. */
const ENDING =
  /(?![·‧・])[\p{Ps}\p{Pe}\p{Pi}\p{Pf}\p{Po}\u2014\u2015\u3000\u301C\uFF04\uFF0B\uFF1C-\uFF1E\uFF3E\uFF40\uFF5C\uFF5E\uFFE5]/u;
/** So do these of ASCII right before East Asian text, where no space would follow them. */
const ENDING_BEFORE_TEXT = /\*{1,3}|~~|__|["',;!\])]/y;
const NOT_ASCII = /[^\0-\x7F]/;
/** A host's last label is either all ASCII or all of another script: in "example.com查看" it ends before 查. */
const HOST_BEFORE_TEXT =
  /^(?:https?:\/\/)?[a-z\d.-]*[a-z\d](?::\d+)?(?=[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Hangul}])/iu;

/** Where the address that begins at `start` ends; null when GitHub's rules find its end. */
export function addressEnd(source: string, start: number): number | null {
  RUN.lastIndex = start;
  const run = RUN.exec(source)?.[0];
  if (!run) return null;
  // Behind such a text GitHub's rules would not let one begin with www.
  const end = endOfRun(run) ?? (EAST_ASIAN.test(source[start - 1] ?? "") ? run.length : null);
  if (end === null) return null;
  const address = withoutTrail(run.slice(0, end));
  return ADDRESS.test(address) ? start + address.length : null;
}

function endOfRun(run: string): number | null {
  if (!NOT_ASCII.test(run)) return null;
  const host = HOST_BEFORE_TEXT.exec(run)?.[0];
  // With a dot behind the text it is a name of that script, as in "www.例.com".
  if (host && /[.:]/.test(host.replace("://", ""))) {
    const rest = run.slice(host.length).split(ENDING)[0] ?? "";
    if (!/^[^/?#]*\.[\p{L}\p{N}]/u.test(rest)) return host.length;
  }
  let open = 0;
  for (let index = run.indexOf("//") + 2; index < run.length; index++) {
    const char = run[index] ?? "";
    if (char > "\x7F") {
      const isApostrophe = char === "’" && /[a-z]/i.test(run[index - 1] ?? "") && /[a-z]/i.test(run[index + 1] ?? "");
      if (!isApostrophe && ENDING.test(char)) return index;
      continue;
    }
    if (char === "(") open += 1;
    if (char === ")" && --open >= 0) continue;
    ENDING_BEFORE_TEXT.lastIndex = index;
    const marks = ENDING_BEFORE_TEXT.exec(run)?.[0];
    if (marks && EAST_ASIAN.test(run[index + marks.length] ?? "")) return index;
  }
  return null;
}

/** Without the punctuation that GitHub's rules do not count to an address at its end. */
function withoutTrail(address: string): string {
  let end = address.length;
  for (; end > 0; end--) {
    const char = address[end - 1] ?? "";
    if (char === ")" && count(address.slice(0, end), "(") >= count(address.slice(0, end), ")")) break;
    if (!/[!"&'),.:;?\]*_~]/.test(char)) break;
  }
  return address.slice(0, end);
}

function count(text: string, char: string): number {
  return text.split(char).length - 1;
}

const LETTERS_H = [72, 104];
const LETTERS_W = [87, 119];

function isLetter(code: Code): boolean {
  return code !== null && ((code >= 65 && code <= 90) || (code >= 97 && code <= 122));
}

/** Whether an address may begin behind a character. */
function mayFollow(before: Code, isWww: boolean): boolean {
  if (!isWww) return !isLetter(before);
  return before === null || before < 0 || before > 0x7f || " (*_[]~".includes(String.fromCharCode(before));
}

function addressTokenizer(source: string): Tokenizer {
  // Up to these there is no text of a link that may still end.
  const outside = new WeakSet<object>();

  function isInLabel({ events }: TokenizeContext): boolean {
    for (let index = events.length - 1; index >= 0; index--) {
      const token = events[index]?.[1];
      if (!token || outside.has(token)) break;
      if ((token.type === "labelLink" || token.type === "labelImage") && !token._balanced) return true;
    }
    const last = events.at(-1);
    if (last) outside.add(last[1]);
    return false;
  }

  return function tokenize(effects, ok, nok) {
    const now = this.now.bind(this);
    const start = now().offset;
    const isWww = LETTERS_W.includes(source.charCodeAt(start));
    if (!mayFollow(this.previous, isWww)) return nok;
    const found = addressEnd(source, start);
    if (found === null || isInLabel(this)) return nok;
    const end: number = found;
    const value = isWww ? "literalAutolinkWww" : "literalAutolinkHttp";

    return (code) => {
      effects.enter("literalAutolink");
      effects.enter(value);
      return inside(code);
    };

    function inside(code: Code): State | undefined {
      if (now().offset < end && code !== null && code > 0) {
        effects.consume(code);
        return inside;
      }
      effects.exit(value);
      effects.exit("literalAutolink");
      return ok(code);
    }
  };
}

/** The syntax of such addresses for one source. */
export function addressSyntax(source: string): Extension {
  const construct: Construct = { name: "address", tokenize: addressTokenizer(source) };
  return { text: Object.fromEntries([...LETTERS_H, ...LETTERS_W].map((letter) => [letter, construct])) };
}

/** Parts texts behind the addresses in them, for GitHub's rules look through the finished tree once more. */
export const addressTree: TreeExtension = { transforms: [partTexts] };

function partTexts(parent: Root | Parents): void {
  if (parent.type === "link" || parent.type === "linkReference") return;
  const children: Nodes[] = [];
  for (const child of parent.children) {
    if ("children" in child) partTexts(child);
    if (child.type === "text") children.push(...partText(child));
    else children.push(child);
  }
  if (children.length > parent.children.length) parent.children = children as typeof parent.children;
}

function partText(node: Text): Text[] {
  const parts: Text[] = [];
  let from = 0;
  for (const { index } of node.value.matchAll(BEGIN)) {
    const end = index < from ? null : addressEnd(node.value, index);
    if (end === null) continue;
    parts.push({ ...node, value: node.value.slice(from, end) });
    from = end;
  }
  if (parts.length === 0) return [node];
  return from < node.value.length ? [...parts, { ...node, value: node.value.slice(from) }] : parts;
}
