"use client";

import { useId } from "react";
import { useThemeSetting } from "./use-theme-setting";
import { RadioGroup, RadioGroupItem } from "./controls/radio-group";
import type { Theme } from "@/lib/api/types";
import { Section } from "@/components/ui/section";

const THEMES: readonly { value: Theme; label: string; hint?: string }[] = [
  { value: "light", label: "Light" },
  { value: "dark", label: "Dark" },
  { value: "system", label: "System", hint: "As your device is set" },
];

/** The colours of the app: at once on this device, and in the account for the others. */
export function AppearanceSettings() {
  const { theme, setTheme } = useThemeSetting();
  const id = useId();
  return (
    <Section title="Theme" description="Kept in your account, so that it is the same on all your devices.">
      <RadioGroup aria-label="Theme" value={theme} onValueChange={(value) => setTheme(value as Theme)}>
        {THEMES.map(({ value, label, hint }) => (
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
              <span id={`${id}-${value}-hint`} className="text-[0.8125rem] text-muted-foreground">
                {hint}
              </span>
            ) : null}
          </div>
        ))}
      </RadioGroup>
    </Section>
  );
}
