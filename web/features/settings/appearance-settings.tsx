"use client";

import { useId } from "react";
import { Section } from "@/components/ui/section";
import type { Theme } from "@/lib/api/types";
import { RadioGroup, RadioGroupItem } from "./controls/radio-group";
import { sentences } from "./sentences";
import { THEMES } from "./theme/themes";
import { useThemeSetting } from "./theme/use-theme-setting";

/** The colours of the app: at once on this device, and in the account for the others. */
export function AppearanceSettings() {
  const { theme, setTheme } = useThemeSetting();
  const id = useId();
  return (
    <Section title={sentences.theme.title} description={sentences.theme.description}>
      <RadioGroup aria-label={sentences.theme.title} value={theme} onValueChange={(value) => setTheme(value as Theme)}>
        {THEMES.map(({ value, label }) => {
          const hint = value === "system" ? sentences.theme.systemHint : null;
          return (
            <div key={value} className="flex items-center gap-3">
              <RadioGroupItem
                id={`${id}-${value}`}
                value={value}
                aria-describedby={hint ? `${id}-${value}-hint` : undefined}
              />
              <label htmlFor={`${id}-${value}`} className="text-sm">
                {label}
              </label>
              {hint ? (
                <span id={`${id}-${value}-hint`} className="text-[0.8125rem] text-ink-2">
                  {hint}
                </span>
              ) : null}
            </div>
          );
        })}
      </RadioGroup>
    </Section>
  );
}
