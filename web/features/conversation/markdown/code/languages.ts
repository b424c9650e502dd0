import type { LanguageFn } from "highlight.js";
import { sentences } from "../sentences";

type Language = {
  label: string;
  load: () => Promise<{ default: LanguageFn }>;
  /** Other names, as authors write them. */
  aliases?: readonly string[];
  /** Languages that its grammar hands parts over to. */
  needs?: readonly string[];
};

/** The languages that are highlighted. Each grammar is a file of its own, loaded when first met. */
export const LANGUAGES: Readonly<Record<string, Language>> = {
  bash: { label: "Shell", load: () => import("highlight.js/lib/languages/bash"), aliases: ["sh", "zsh", "shell"] },
  c: { label: "C", load: () => import("highlight.js/lib/languages/c"), aliases: ["h"] },
  cpp: { label: "C++", load: () => import("highlight.js/lib/languages/cpp"), aliases: ["c++", "cc", "hpp", "cxx"] },
  csharp: { label: "C#", load: () => import("highlight.js/lib/languages/csharp"), aliases: ["cs", "c#"] },
  css: { label: "CSS", load: () => import("highlight.js/lib/languages/css") },
  diff: { label: "Diff", load: () => import("highlight.js/lib/languages/diff"), aliases: ["patch"] },
  dockerfile: { label: "Dockerfile", load: () => import("highlight.js/lib/languages/dockerfile"), aliases: ["docker"] },
  go: { label: "Go", load: () => import("highlight.js/lib/languages/go"), aliases: ["golang"] },
  ini: { label: "INI", load: () => import("highlight.js/lib/languages/ini"), aliases: ["toml"] },
  java: { label: "Java", load: () => import("highlight.js/lib/languages/java") },
  javascript: {
    label: "JavaScript",
    load: () => import("highlight.js/lib/languages/javascript"),
    aliases: ["js", "jsx", "mjs", "cjs", "node"],
    needs: ["xml"],
  },
  json: { label: "JSON", load: () => import("highlight.js/lib/languages/json"), aliases: ["jsonc", "json5", "jsonl"] },
  kotlin: { label: "Kotlin", load: () => import("highlight.js/lib/languages/kotlin"), aliases: ["kt", "kts"] },
  latex: { label: "LaTeX", load: () => import("highlight.js/lib/languages/latex"), aliases: ["tex"] },
  lua: { label: "Lua", load: () => import("highlight.js/lib/languages/lua") },
  makefile: { label: "Makefile", load: () => import("highlight.js/lib/languages/makefile"), aliases: ["make", "mk"] },
  markdown: { label: "Markdown", load: () => import("highlight.js/lib/languages/markdown"), aliases: ["md", "mdx"] },
  php: { label: "PHP", load: () => import("highlight.js/lib/languages/php") },
  powershell: {
    label: "PowerShell",
    load: () => import("highlight.js/lib/languages/powershell"),
    aliases: ["ps1", "pwsh"],
  },
  protobuf: {
    label: "Protocol Buffers",
    load: () => import("highlight.js/lib/languages/protobuf"),
    aliases: ["proto"],
  },
  python: {
    label: "Python",
    load: () => import("highlight.js/lib/languages/python"),
    aliases: ["py", "py3", "python3"],
  },
  r: { label: "R", load: () => import("highlight.js/lib/languages/r") },
  ruby: { label: "Ruby", load: () => import("highlight.js/lib/languages/ruby"), aliases: ["rb"] },
  rust: { label: "Rust", load: () => import("highlight.js/lib/languages/rust"), aliases: ["rs"] },
  sql: {
    label: "SQL",
    load: () => import("highlight.js/lib/languages/sql"),
    aliases: ["postgresql", "postgres", "mysql", "sqlite"],
  },
  swift: { label: "Swift", load: () => import("highlight.js/lib/languages/swift") },
  typescript: {
    label: "TypeScript",
    load: () => import("highlight.js/lib/languages/typescript"),
    aliases: ["ts", "tsx", "mts", "cts"],
    needs: ["xml"],
  },
  xml: {
    label: "XML",
    load: () => import("highlight.js/lib/languages/xml"),
    aliases: ["html", "xhtml", "svg", "vue", "svelte"],
    needs: ["css", "javascript"],
  },
  yaml: { label: "YAML", load: () => import("highlight.js/lib/languages/yaml"), aliases: ["yml"] },
};

/** How aliases are called that are not just another spelling. */
const LABELS: Readonly<Record<string, string>> = {
  html: "HTML",
  jsx: "JSX",
  svg: "SVG",
  toml: "TOML",
  tsx: "TSX",
  vue: "Vue",
  svelte: "Svelte",
  postgresql: "PostgreSQL",
  mysql: "MySQL",
  sqlite: "SQLite",
  text: "Text",
  txt: "Text",
  plaintext: "Text",
  console: "Console",
};

const NAMES = new Map(
  Object.entries(LANGUAGES).flatMap(([name, { aliases = [] }]) =>
    [name, ...aliases].map((each) => [each, name] as const),
  ),
);

/** The highlighted language that the word behind a fence means; null when it is none. */
export function languageOf(word: string | null | undefined): string | null {
  return NAMES.get(normalWord(word)) ?? null;
}

/** What a code block is headed with. */
export function languageLabel(word: string | null | undefined): string {
  const normal = normalWord(word);
  if (normal === "") return sentences.code;
  const language = LANGUAGES[NAMES.get(normal) ?? ""];
  return LABELS[normal] ?? language?.label ?? (word ?? "").slice(0, 30);
}

// Authors add file names and numbers of lines: ```python:main.py, ```js{1,3}, ```{.ruby}
function normalWord(word: string | null | undefined): string {
  return (/^[{.]*([^\s{}:,;=]+)/.exec(word ?? "")?.[1] ?? "").toLowerCase();
}
