/**
 * The elements that HTML in an answer may become. They format words and do nothing else; none takes an attribute, but
 * for `open` of <details>. All other HTML is shown as its source.
 */
export const INLINE_ELEMENTS = [
  "b", "bdi", "cite", "code", "del", "dfn", "em", "i", "ins", "kbd", "mark", "q", "rp", "rt", "ruby", "s", "samp", "small",
  "strong", "sub", "sup", "u", "var",
] as const; // biome-ignore format: a list of names

export type InlineElement = (typeof INLINE_ELEMENTS)[number];

const INLINE: ReadonlySet<string> = new Set(INLINE_ELEMENTS);
const NAMES = [...INLINE_ELEMENTS, "br", "hr", "wbr", "details", "summary"];

export function isInlineElement(name: string): name is InlineElement {
  return INLINE.has(name);
}

/** Tags of what can be folded. */
export const DISCLOSURE_TAG =
  /<(?:details(?:[ \t]+open(?:=(?:"(?:open|true)?"|'(?:open|true)?'))?)?|\/details|\/?summary)[ \t]*>/gi;
/** Tags of elements within a text, without attributes. */
export const INLINE_TAG = new RegExp(`<(/?)(${INLINE_ELEMENTS.join("|")})>`, "iy");

const BEGUN_TAG = /<(\/?)([a-z]*)([ \t]*\/?|[ \t]+o[a-z]*)$/i;
/** Whether a summary follows decides how it is shown. */
const BEGUN_DETAILS = /^<details(?:[ \t]+open)?>\s*$/i;

/** How much of the end of a text that grows may become a tag, or tell how one before it is shown. */
export function begunTagLength(text: string): number {
  const length = lengthOfBegunTag(text);
  const before = text.slice(0, text.length - length);
  const last = before.lastIndexOf("<");
  return last >= 0 && BEGUN_DETAILS.test(before.slice(last)) ? text.length - last : length;
}

function lengthOfBegunTag(text: string): number {
  const [tag = "", closing, name = "", more = ""] = BEGUN_TAG.exec(text.slice(-24)) ?? [];
  if (tag === "") return 0;
  if (name === "") return more === "" ? tag.length : 0;
  const isWhole = more !== "";
  const mayBe = NAMES.some((each) => (isWhole ? each === name.toLowerCase() : each.startsWith(name.toLowerCase())));
  return mayBe && !(closing && isWhole) ? tag.length : 0;
}
