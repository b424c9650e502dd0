"use client";

import * as RadioGroup from "radix-ui/radio-group";

type ChoiceBarProps = {
  label: string;
  value: string;
  choices: readonly { value: string; label: string }[];
  onChange: (value: string) => void;
};

/** A choice of few, side by side. */
export function ChoiceBar({ label, value, choices, onChange }: ChoiceBarProps) {
  return (
    <RadioGroup.Root
      aria-label={label}
      orientation="horizontal"
      value={value}
      onValueChange={onChange}
      className="inline-flex flex-wrap gap-1 rounded-lg bg-well p-1 forced-colors:border"
    >
      {choices.map((choice) => (
        <RadioGroup.Item
          key={choice.value}
          value={choice.value}
          className="h-7 rounded-md px-3 text-sm text-ink-2 hover:text-ink data-[state=checked]:bg-raised data-[state=checked]:shadow-1 data-[state=checked]:font-medium data-[state=checked]:text-ink"
        >
          {choice.label}
        </RadioGroup.Item>
      ))}
    </RadioGroup.Root>
  );
}
