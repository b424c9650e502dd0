"use client";

import { useState } from "react";
import { cn } from "@/lib/utils";

/** Up to two letters of a name, the way people abbreviate it. */
export function initials(name: string): string {
  const words = name
    .trim()
    .split(/[\s.@_-]+/u)
    .filter(Boolean);
  const picked = words.length > 1 ? [words[0], words[words.length - 1]] : words;
  return picked.map((word) => Array.from(word ?? "")[0]?.toLocaleUpperCase() ?? "").join("") || "?";
}

/** A hue for a name, the same wherever it stands, in steps that can be told apart. */
function hueOf(name: string): number {
  let sum = 0;
  for (const letter of name) sum = (sum * 31 + (letter.codePointAt(0) ?? 0)) % 9973;
  return (sum % 24) * 15;
}

export type AvatarProps = { name: string; src?: string | null; className?: string };

/** Somebody's picture, or the initials while there is none. Decoration: the name stands beside it or labels the control. */
export function Avatar({ name, src, className }: AvatarProps) {
  const [failed, setFailed] = useState<string | null>(null);
  const hasPicture = Boolean(src) && failed !== src;
  return (
    <span
      aria-hidden
      // Painted, not written: letters inside a button would have to be part of its name.
      data-initials={hasPicture ? undefined : initials(name)}
      style={
        hasPicture
          ? undefined
          : {
              background: `oklch(var(--avatar-l) 0.055 ${hueOf(name)})`,
              color: `oklch(var(--avatar-ink-l) 0.07 ${hueOf(name)})`,
            }
      }
      className={cn(
        "inline-flex size-8 shrink-0 items-center justify-center overflow-hidden rounded-full text-xs font-semibold select-none before:content-[attr(data-initials)]",
        className,
      )}
    >
      {src && hasPicture ? (
        // biome-ignore lint/performance/noImgElement: a static export has nothing that could optimise images.
        <img src={src} alt="" className="size-full object-cover" onError={() => setFailed(src)} />
      ) : null}
    </span>
  );
}
