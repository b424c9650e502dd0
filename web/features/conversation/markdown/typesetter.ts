import katex from "katex";
import "katex/contrib/mhchem";
import "katex/dist/katex.min.css";

/** No formula that an answer needs is longer; the typesetter's work is not linear in all its constructs. */
const LONGEST = 10_000;

/**
 * Sets a formula into an element, by way of the DOM, without markup in between. Returns false and leaves the element as
 * it was when the formula has a mistake. Commands that would link, load or carry HTML are not trusted.
 */
export function typeset(tex: string, element: HTMLElement, display: boolean): boolean {
  if (tex.length > LONGEST) return false;
  const place = document.createElement("span");
  try {
    katex.render(tex, place, {
      displayMode: display,
      throwOnError: true,
      trust: false,
      strict: false,
      maxExpand: 500,
      maxSize: 30,
    });
  } catch {
    return false;
  }
  element.replaceChildren(...place.childNodes);
  return true;
}
