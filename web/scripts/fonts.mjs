// Writes the fonts of the app to the folder given (fonts/): only the characters, weights and axes that it uses, and each
// font's licence beside them. What it makes is committed; fonts.test.ts holds both together.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import process from "node:process";
import subsetFont from "subset-font";

const PACKAGES = path.resolve(import.meta.dirname, "../node_modules/@fontsource-variable");
// Latin-1, the quotes, dashes and spaces of all that is written with it, and currencies: the packages' own `latin`.
const LATIN = [
  [0x20, 0x7e],
  [0xa0, 0xff],
  [0x131, 0x131],
  [0x152, 0x153],
  [0x2bb, 0x2bc],
  [0x2c6, 0x2c6],
  [0x2da, 0x2da],
  [0x2dc, 0x2dc],
  [0x2000, 0x206f],
  [0x20ac, 0x20ac],
  [0x2122, 0x2122],
  [0x2190, 0x2193],
  [0x2212, 0x2212],
  [0x2215, 0x2215],
];
const LATIN_EXTENDED = [
  [0x100, 0x2ba],
  [0x1d00, 0x1dbf],
  [0x1e00, 0x1e9f],
  [0x1ef2, 0x1eff],
  [0x20a0, 0x20ab],
  [0x20ad, 0x20c0],
];
const ARABIC = [
  [0x600, 0x6ff],
  [0x750, 0x77f],
  [0x870, 0x8e1],
  [0x200c, 0x200e],
  [0x2010, 0x2011],
  [0xfb50, 0xfdff],
  [0xfe70, 0xfefc],
];
const WEIGHTS = { min: 400, max: 600 };

const FONTS = [
  { name: "sans", from: "hanken-grotesk", file: "hanken-grotesk-latin-wght-normal", characters: LATIN },
  { name: "sans-italic", from: "hanken-grotesk", file: "hanken-grotesk-latin-wght-italic", characters: LATIN },
  {
    name: "sans-extended",
    from: "hanken-grotesk",
    file: "hanken-grotesk-latin-ext-wght-normal",
    characters: LATIN_EXTENDED,
  },
  {
    name: "serif",
    from: "newsreader",
    file: "newsreader-latin-standard-normal",
    characters: LATIN,
    axes: { opsz: 36, wght: 430 },
  },
  { name: "arabic", from: "vazirmatn", file: "vazirmatn-arabic-wght-normal", characters: ARABIC },
  { name: "mono", from: "geist-mono", file: "geist-mono-latin-wght-normal", characters: LATIN },
];

/** Yields [file name, contents] of each font and each licence. */
export async function* made() {
  for (const { name, from, file, characters, axes = { wght: WEIGHTS } } of FONTS) {
    const whole = await readFile(path.join(PACKAGES, from, "files", `${file}.woff2`));
    const text = characters
      .flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, index) => first + index))
      .map((code) => String.fromCodePoint(code))
      .join("");
    yield [`${name}.woff2`, await subsetFont(whole, text, { targetFormat: "woff2", variationAxes: axes })];
  }
  for (const from of new Set(FONTS.map((font) => font.from))) {
    yield [`${from}.LICENSE.txt`, await readFile(path.join(PACKAGES, from, "LICENSE"))];
  }
}

if (process.argv[2]) {
  await mkdir(process.argv[2], { recursive: true });
  for await (const [name, contents] of made()) await writeFile(path.join(process.argv[2], name), contents);
}
