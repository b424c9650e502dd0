import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

const css = readFileSync("app/tokens.css", "utf8");

type Colour = readonly [red: number, green: number, blue: number];

/** OKLCH as the browser shows it: OKLab, linear sRGB, clipped, in steps of 8 bit (CSS Color 4, section 10.1). */
function shown(lightness: number, chroma: number, hue: number): Colour {
  const angle = (hue * Math.PI) / 180;
  const [a, b] = [chroma * Math.cos(angle), chroma * Math.sin(angle)];
  const long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const short = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
    -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
    -0.0041960863 * long - 0.7034186147 * medium + 1.707614701 * short,
  ];
  const [red = 0, green = 0, blue = 0] = linear.map((value) => {
    const clipped = Math.min(1, Math.max(0, value));
    const encoded = clipped <= 0.0031308 ? 12.92 * clipped : 1.055 * clipped ** (1 / 2.4) - 0.055;
    return Math.round(encoded * 255) / 255;
  });
  return [red, green, blue];
}

function coloursOf(selector: string): Record<string, Colour> {
  const block = css.split(`${selector} {`)[1]?.split("}")[0] ?? "";
  return Object.fromEntries(
    [...block.matchAll(/--([\w-]+): oklch\(([\d.]+) ([\d.]+) ([\d.]+)\);/g)].map(([, name, ...values]) => {
      const [lightness = 0, chroma = 0, hue = 0] = values.map(Number);
      return [name, shown(lightness, chroma, hue)];
    }),
  );
}

function luminance(colour: Colour): number {
  const [red = 0, green = 0, blue = 0] = colour.map((value) =>
    value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4,
  );
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(a: Colour, b: Colour): number {
  const [high = 0, low = 0] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (high + 0.05) / (low + 0.05);
}

const grounds = ["desk", "desk-hover", "sheet", "raised", "well", "well-2", "hover", "active"];
const texts: [string, string[]][] = [
  ["ink", [...grounds, "pine-soft", "pine-soft-2", "brass-soft", "danger-soft", "add", "del"]],
  ["ink-2", [...grounds, "brass-soft", "danger-soft"]],
  ["ink-3", [...grounds, "brass-soft"]],
  ["pine-text", ["desk", "sheet", "raised", "well", "pine-soft", "pine-soft-2", "brass-soft"]],
  ["pine-ink", ["pine", "pine-hover"]],
  ["brand-ink", ["brand"]],
  ["brass-text", ["sheet", "brass-soft"]],
  ["brass-ink", ["brass"]],
  ["danger-text", ["sheet", "raised", "desk", "well", "hover", "active", "danger-soft"]],
  ["danger-ink", ["danger", "danger-hover"]],
  ["good-text", ["sheet", "raised", "well", "good-soft"]],
  ...["word", "string", "number", "name", "quiet"].map((kind): [string, string[]] => [`code-${kind}`, ["well"]]),
];
const shapes: [string, string[]][] = [
  ["edge", ["sheet", "desk", "raised"]],
  ["pine", ["sheet", "desk", "raised"]],
  ...[1, 2, 3, 4, 5, 6].map((number): [string, string[]] => [`chart-${number}`, ["sheet"]]),
];

test("a colour is converted as the browser does it", () => {
  // What Chromium paints for these: #e9f0ed, #076453, #f1c662.
  expect(shown(0.949, 0.008, 168).map((value) => value * 255)).toEqual([0xe9, 0xf0, 0xed]);
  expect(shown(0.45, 0.082, 176).map((value) => value * 255)).toEqual([0x07, 0x64, 0x53]);
  expect(shown(0.845, 0.128, 86).map((value) => value * 255)).toEqual([0xf1, 0xc6, 0x62]);
});

test.each([":root", ".dark"])("the colours of %s can be read", (selector) => {
  const colours = coloursOf(selector);
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
