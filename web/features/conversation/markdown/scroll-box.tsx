import { type ReactNode, useEffect, useRef, useState } from "react";
import { cn } from "@/lib/utils";

export type ScrollBoxProps = {
  label: string;
  /** Whether it stands within a paragraph. */
  inText?: boolean;
  className?: string;
  children: ReactNode;
};

/**
 * A box whose content may be wider than the page; it scrolls, the page does not. It can be reached and scrolled with the
 * keyboard while there is something to scroll. A group, not a region: an answer can hold many of the same name, which
 * as landmarks would hide the page's own.
 */
export function ScrollBox({ label, inText = false, className, children }: ScrollBoxProps) {
  const Tag = inText ? "span" : "div";
  const box = useRef<HTMLDivElement>(null);
  const [overflows, setOverflows] = useState(false);

  useEffect(() => {
    const element = box.current;
    if (!element || typeof ResizeObserver === "undefined") return;
    const measure = (): void => setOverflows(element.scrollWidth > element.clientWidth + 1);
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    if (element.firstElementChild) observer.observe(element.firstElementChild);
    return () => observer.disconnect();
  }, []);

  return (
    <Tag
      ref={box}
      className={cn("block max-w-full overflow-x-auto overscroll-x-contain print:overflow-visible", className)}
      {...(overflows ? { tabIndex: 0, role: "group", "aria-label": label } : {})}
    >
      {children}
    </Tag>
  );
}
