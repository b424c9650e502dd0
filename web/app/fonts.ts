// The families of docs/design.md. Next computes a system font of the same measures for the time before they are there, so
// that nothing moves; only the sans is wanted before the first paint.
import localFont from "next/font/local";

const sans = localFont({
  src: "../fonts/sans.woff2",
  weight: "400 600",
  style: "normal",
  variable: "--font-hanken",
  display: "swap",
  adjustFontFallback: "Arial",
});

const sansExtended = localFont({
  src: "../fonts/sans-extended.woff2",
  weight: "400 600",
  style: "normal",
  variable: "--font-hanken-extended",
  display: "swap",
  preload: false,
  adjustFontFallback: false,
  declarations: [{ prop: "unicode-range", value: "U+0100-02BA, U+1D00-1DBF, U+1E00-1E9F, U+1EF2-1EFF, U+20A0-20AB" }],
});

// A family of its own: faces of one family are all preloaded, or none.
const sansItalic = localFont({
  src: "../fonts/sans-italic.woff2",
  weight: "400 600",
  style: "italic",
  variable: "--font-hanken-italic",
  display: "swap",
  preload: false,
  adjustFontFallback: false,
});

const arabic = localFont({
  src: "../fonts/arabic.woff2",
  weight: "400 600",
  style: "normal",
  variable: "--font-vazirmatn",
  display: "swap",
  preload: false,
  adjustFontFallback: false,
  declarations: [{ prop: "unicode-range", value: "U+0600-06FF, U+0750-077F, U+0870-08E1, U+FB50-FDFF, U+FE70-FEFC" }],
});

const serif = localFont({
  src: "../fonts/serif.woff2",
  weight: "430",
  style: "normal",
  variable: "--font-newsreader",
  display: "optional",
  preload: false,
  adjustFontFallback: false,
});

const mono = localFont({
  src: "../fonts/mono.woff2",
  weight: "400 600",
  style: "normal",
  variable: "--font-geist-mono",
  display: "swap",
  preload: false,
  adjustFontFallback: false,
});

/** The classes that give the page its families, as variables that `globals.css` puts into its stacks. */
export const fontVariables = [sans, sansExtended, sansItalic, arabic, serif, mono]
  .map((font) => font.variable)
  .join(" ");
