import { ChevronLeft, ChevronRight } from "lucide-react";
import type { Alternatives } from "../controller/message-window";
import { IconButton } from "../icon-button";
import { sentences } from "../sentences";

type VersionSwitcherProps = { alternatives: Alternatives; isDisabled: boolean; onSelect: (messageId: string) => void };

/** Goes from one version of a message to the next. */
export function VersionSwitcher({ alternatives: { ids, index }, isDisabled, onSelect }: VersionSwitcherProps) {
  const previous = ids[index - 1];
  const next = ids[index + 1];
  return (
    <span className="inline-flex items-center text-xs text-ink-2">
      <IconButton
        label={sentences.message.previousVersion}
        disabled={isDisabled || previous === undefined}
        onClick={() => previous !== undefined && onSelect(previous)}
      >
        <ChevronLeft aria-hidden />
      </IconButton>
      <span className="tabular-nums">{sentences.message.version(index + 1, ids.length)}</span>
      <IconButton
        label={sentences.message.nextVersion}
        disabled={isDisabled || next === undefined}
        onClick={() => next !== undefined && onSelect(next)}
      >
        <ChevronRight aria-hidden />
      </IconButton>
    </span>
  );
}
