"use client";

import { Brain, ChevronRight } from "lucide-react";
import { useState } from "react";
import { cn } from "@/lib/utils";
import { Markdown } from "../markdown/markdown";
import type { Thought as Part } from "../runs/run-reducer";
import { sentences } from "../sentences";

/** What the model thought, folded: how long it took, or that it still thinks. Its text is drawn while it is unfolded. */
export function Thought({ thought }: { thought: Part }) {
  const [isOpen, setIsOpen] = useState(false);
  const { text, milliseconds } = thought;
  const isOngoing = milliseconds === null;
  return (
    <details className="group my-2 text-sm text-ink-2" onToggle={(event) => setIsOpen(event.currentTarget.open)}>
      <summary className="flex min-h-9 w-fit max-w-full items-center gap-2 rounded-md pe-2 select-none hover:text-ink">
        <Brain className="size-4 shrink-0" aria-hidden />
        <span className={cn("min-w-0", isOngoing && "animate-pulse motion-reduce:animate-none")}>
          {isOngoing ? sentences.turn.thinking : sentences.message.thought(milliseconds)}
        </span>
        <ChevronRight className="size-4 shrink-0 transition-transform group-open:rotate-90" aria-hidden />
      </summary>
      {isOpen ? (
        <div className="mt-1 mb-3 ms-2 border-s-2 ps-4">
          <Markdown text={text} streaming={isOngoing} />
        </div>
      ) : null}
    </details>
  );
}
