import { useEffect, useRef } from "react";
import { Button } from "@/components/ui/button";
import { ErrorNotice } from "@/components/ui/error-notice";
import { sentences } from "./sentences";

type MoreHitsProps = {
  isLoading: boolean;
  error: unknown;
  onLoad: () => void;
  /** How many there are already: when more have come, the end is looked for anew. */
  loaded: number;
};

/** The end of a list that goes on: asks for more shortly before it is seen, or when its button is pressed. */
export function MoreHits({ isLoading, error, onLoad, loaded }: MoreHitsProps) {
  const end = useRef<HTMLDivElement>(null);
  const load = useRef(onLoad);
  useEffect(() => {
    load.current = onLoad;
  });
  const isWaiting = !isLoading && !error;

  // biome-ignore lint/correctness/useExhaustiveDependencies: a new page moves the end, which then is looked for anew
  useEffect(() => {
    const element = end.current;
    if (!element || !isWaiting || typeof IntersectionObserver === "undefined") return;
    const observer = new IntersectionObserver(
      (entries) => {
        if (entries.some((entry) => entry.isIntersecting)) load.current();
      },
      { root: element.closest("[data-scroll-root]"), rootMargin: "400px 0px" },
    );
    observer.observe(element);
    return () => observer.disconnect();
  }, [isWaiting, loaded]);

  return (
    <div ref={end} className="grid justify-items-center">
      {error ? (
        <ErrorNotice className="w-full" title={sentences.moreFailed} error={error} onRetry={onLoad} />
      ) : (
        <Button variant="outline" size="sm" loading={isLoading} onClick={onLoad}>
          {sentences.showMore}
        </Button>
      )}
    </div>
  );
}
