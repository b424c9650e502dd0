"use client";

import { type RefObject, useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";
import type { VirtualizerHandle } from "virtua";

// So near to its end a list counts as being there.
const END_PX = 40;

type StickToEnd = {
  /** Whether the end is in sight. */
  isAtEnd: boolean;
  /** Goes to the end and stays there. */
  stick: () => void;
  /** Stays where it is. */
  release: () => void;
  onScroll: (offset: number) => void;
  onResize: () => void;
};

/**
 * Keeps a list at its end while it grows, as long as the person is there: scrolling up lets go, coming back holds on
 * again. startsAtEnd: whether the list begins there.
 */
export function useStickToEnd(
  list: RefObject<VirtualizerHandle | null>,
  scroller: RefObject<HTMLElement | null>,
  length: number,
  startsAtEnd: boolean,
): StickToEnd {
  const sticks = useRef(startsAtEnd);
  const last = useRef({ offset: 0, size: 0 });
  const [isAtEnd, setIsAtEnd] = useState(true);

  const goToEnd = useCallback(() => {
    const element = scroller.current;
    if (element !== null) element.scrollTop = element.scrollHeight;
  }, [scroller]);

  const measure = useCallback(() => {
    const element = scroller.current;
    if (element === null) return;
    const { scrollTop: offset, scrollHeight: size, clientHeight } = element;
    const moved = offset - last.current.offset;
    const grown = size - last.current.size;
    last.current = { offset, size };
    const isNear = size - offset - clientHeight <= END_PX;
    // A list that gets shorter, or whose upper messages get another height, moves by itself; that is nobody's wish.
    if (isNear) sticks.current = true;
    else if (moved < -1 && moved < grown - 1) sticks.current = false;
    setIsAtEnd(isNear || sticks.current);
  }, [scroller]);

  const stick = useCallback(() => {
    sticks.current = true;
    setIsAtEnd(true);
    list.current?.scrollToIndex(Number.MAX_SAFE_INTEGER, { align: "end" });
    goToEnd();
  }, [list, goToEnd]);

  const release = useCallback(() => {
    sticks.current = false;
  }, []);

  const onResize = useCallback(() => {
    if (sticks.current) goToEnd();
    else measure();
  }, [goToEnd, measure]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: new items make the list longer.
  useLayoutEffect(() => {
    if (sticks.current) goToEnd();
  }, [length, goToEnd]);

  useEffect(() => {
    // The window, or the message box below, may take height away from the list.
    const element = scroller.current;
    if (element === null || typeof ResizeObserver === "undefined") return;
    const observer = new ResizeObserver(onResize);
    observer.observe(element);
    return () => observer.disconnect();
  }, [scroller, onResize]);

  return { isAtEnd, stick, release, onScroll: measure, onResize };
}
