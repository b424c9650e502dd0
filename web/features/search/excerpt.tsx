import type { MessageHit } from "@/lib/api/types";

export type ExcerptPart = { text: string; isMatch: boolean };

/**
 * Cuts an excerpt at its matches. Their places are counted in code points, while JavaScript counts UTF-16 units: an emoji
 * is one of the former and two of the latter. Places that overlap, touch or lie outside do no harm.
 */
export function splitExcerpt(excerpt: string, matches: MessageHit["matches"]): ExcerptPart[] {
  const points = Array.from(excerpt);
  const parts: ExcerptPart[] = [];
  let done = 0;
  const add = (end: number, isMatch: boolean): void => {
    if (end <= done) return;
    const text = points.slice(done, end).join("");
    done = end;
    const last = parts.at(-1);
    if (last?.isMatch === isMatch) last.text += text;
    else parts.push({ text, isMatch });
  };
  for (const { start, end } of matches.toSorted((a, b) => a.start - b.start)) {
    if (end <= start) continue;
    add(Math.min(start, points.length), false);
    add(Math.min(end, points.length), true);
  }
  add(points.length, false);
  return parts;
}

/** Some words of a message, with those marked that were searched for. */
export function Excerpt({ hit }: { hit: MessageHit }) {
  let place = 0;
  return (
    <p dir="auto" className="line-clamp-3 text-sm leading-6 wrap-anywhere text-ink-2">
      {splitExcerpt(hit.excerpt, hit.matches).map(({ text, isMatch }) => {
        const key = place;
        place += text.length;
        return isMatch ? <mark key={key}>{text}</mark> : <span key={key}>{text}</span>;
      })}
    </p>
  );
}
