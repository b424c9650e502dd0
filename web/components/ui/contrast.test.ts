import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

const css = readFileSync("app/globals.css", "utf8");

function themeVariables(selector: string): Record<string, string> {
  const block = css.split(`${selector} {`)[1]?.split("}")[0] ?? "";
  return Object.fromEntries([...block.matchAll(/--([\w-]+): (#[0-9a-f]{6});/g)].map((match) => [match[1], match[2]]));
}

function luminance(hex: string): number {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((start) => {
    const value = Number.parseInt(hex.slice(start, start + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(a: string, b: string): number {
  const [high = 0, low = 0] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (high + 0.05) / (low + 0.05);
}

const grounds = ["background", "card", "popover", "muted", "accent", "secondary", "sidebar", "sidebar-accent"];
const texts: [string, string[]][] = [
  ["foreground", grounds],
  ["muted-foreground", grounds],
  ["primary", ["background", "card", "popover", "muted", "sidebar"]],
  ["destructive-text", ["background", "card", "popover", "muted", "accent", "sidebar"]],
  ["success-text", ["background", "card", "popover", "muted"]],
  ["primary-foreground", ["primary", "primary-hover"]],
  ["secondary-foreground", ["secondary", "accent"]],
  ["accent-foreground", ["accent", "sidebar-accent"]],
  ["destructive-foreground", ["destructive", "destructive-hover"]],
  ["mark-foreground", ["mark"]],
  ["background", ["foreground"]],
];
const shapes: [string, string[]][] = [
  ["input", ["background", "card", "popover"]],
  ["control", ["background", "card", "popover", "muted"]],
  ["ring", ["background", "card", "popover", "sidebar"]],
  ...[1, 2, 3, 4, 5].map((number): [string, string[]] => [`chart-${number}`, ["background", "card"]]),
];

test.each([":root", ".dark"])("the colours of %s can be read", (selector) => {
  const colours = themeVariables(selector);
  const tooPale: string[] = [];
  for (const [pairs, least] of [
    [texts, 4.5],
    [shapes, 3],
  ] as const) {
    for (const [front, backs] of pairs) {
      for (const back of backs) {
        const [a, b] = [colours[front], colours[back]];
        const ratio = a && b ? contrast(a, b) : 0;
        if (ratio < least) tooPale.push(`${front} on ${back}: ${ratio.toFixed(2)} < ${least}`);
      }
    }
  }
  expect(tooPale).toEqual([]);
});
