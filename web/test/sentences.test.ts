// @vitest-environment node
import { describe, expect, it } from "vitest";
import { readModules } from "./modules";
import { writtenSentences } from "./written-sentences";

// What only servers and developers read.
const NO_SENTENCES = new Set(["Bearer", "Parts of a menu belong into a DropdownMenu."]);
// These hold names that are the same in every language: of programming languages, of keys.
const NAMES = new Set(["features/conversation/markdown/code/languages.ts", "lib/shortcuts.ts"]);

describe("a sentence in the code is found", () => {
  it.each([
    ["<p>Hello</p>", ["Hello"]],
    ["<>Hello {name}</>", ["Hello"]],
    [`<p>{isLate ? "late" : \`\${count} early\`}</p>`, ["late", "early"]],
    ['<p>{name || "nobody"}</p>', ["nobody"]],
    ['<Field label="Name" />', ["Name"]],
    ['<button aria-label={isOpen ? "Close" : "Open"} />', ["Close", "Open"]],
    ['toast("done")', ["done"]],
    [`toast.success(\`Saved \${name}\`)`, ["Saved"]],
    ['const menu = { label: "more" }', ["more"]],
    ['throw new Error("This file is too large.")', ["This file is too large."]],
    ['const failure = "the name is taken already."', ["the name is taken already."]],
    [`const title = \`Chat with \${name}\``, ["Chat with"]],
  ])("%s", (code, sentences) => {
    expect(
      writtenSentences("x.tsx", `const name = "";\n${code.startsWith("<") ? `export default ${code}` : code};`),
    ).toEqual(sentences);
  });
});

describe("what no person reads is none", () => {
  it.each([
    '<p className="grid gap-2 text-sm">{sentences.title} · {count}</p>',
    '<input type="text" name="username" autoComplete="username" />',
    "<code>concerto mail</code>",
    'if (event.key === "Escape") fetch("/auth/logout", { method: "POST" })',
    'export type Kind = "send" | "edit"',
  ])("%s", (code) => {
    expect(writtenSentences("x.tsx", code.startsWith("<") ? `export default ${code}` : code)).toEqual([]);
  });
});

const modules = readModules().filter(
  ({ path, isTest }) => !isTest && !path.endsWith("/sentences.ts") && !NAMES.has(path),
);

it("every sentence stands in a catalogue", () => {
  const found = modules.map(({ path, text }) => ({
    path,
    sentences: writtenSentences(path, text).filter((sentence) => !NO_SENTENCES.has(sentence)),
  }));
  expect(found.length).toBeGreaterThan(100);
  expect(found.filter(({ sentences }) => sentences.length > 0)).toEqual([]);
});
