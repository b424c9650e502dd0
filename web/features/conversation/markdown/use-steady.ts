import { useEffect, useRef, useState } from "react";

/** How often a growing text is shown anew: often enough to look like flowing, seldom enough to leave time for typing. */
const SHORTEST_MS = 40;
const LONGEST_MS = 250;
/** The share of time that rendering may take: one part in four. */
const SHARE = 4;

/** A growing text at a steady pace, which slows down when rendering takes long. The complete text is shown at once. */
export function useSteady(text: string, streaming: boolean): string {
  const [shown, setShown] = useState(text);
  const latest = useRef(text);
  const timer = useRef<ReturnType<typeof setTimeout> | null>(null);
  const began = useRef(0);
  const took = useRef(0);

  useEffect(() => {
    latest.current = text;
    if (!streaming || timer.current !== null) return;
    const wait = Math.min(LONGEST_MS, Math.max(SHORTEST_MS, took.current * SHARE));
    timer.current = setTimeout(() => {
      timer.current = null;
      began.current = performance.now();
      setShown(latest.current);
    }, wait);
  }, [text, streaming]);

  // Runs after what began with the timer has been rendered.
  useEffect(() => {
    if (began.current > 0 && shown !== "") took.current = performance.now() - began.current;
    began.current = 0;
  }, [shown]);

  useEffect(
    () => () => {
      if (timer.current !== null) clearTimeout(timer.current);
      timer.current = null;
    },
    [],
  );

  return streaming && text.startsWith(shown) ? shown : text;
}
