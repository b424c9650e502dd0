import { ChevronLeft, ChevronRight } from "lucide-react";
import type { Alternatives } from "../controller/message-window";
import { IconButton } from "../icon-button";

type VersionSwitcherProps = { alternatives: Alternatives; isDisabled: boolean; onSelect: (messageId: string) => void };

/** Goes from one version of a message to the next. */
export function VersionSwitcher({ alternatives: { ids, index }, isDisabled, onSelect }: VersionSwitcherProps) {
  const previous = ids[index - 1];
  const next = ids[index + 1];
  return (
    <span className="inline-flex items-center text-xs text-muted-foreground">
      <IconButton
        label="Previous version"
        disabled={isDisabled || previous === undefined}
        onClick={() => previous !== undefined && onSelect(previous)}
      >
        <ChevronLeft aria-hidden />
      </IconButton>
      <span className="tabular-nums">
        {index + 1} of {ids.length}
      </span>
      <IconButton
        label="Next version"
        disabled={isDisabled || next === undefined}
        onClick={() => next !== undefined && onSelect(next)}
      >
        <ChevronRight aria-hidden />
      </IconButton>
    </span>
  );
}
