/** The web app's own modules as a compiler reads them: what each of them imports, types included. */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { parseSync, Visitor } from "vite";

const ROOT = path.resolve(import.meta.dirname, "..");
const FOLDERS = ["app", "components", "features", "lib", "scripts", "test"];
// Made at set-up from the gateway's contract; they import nothing.
const GENERATED = new Set(["lib/api/schema.d.ts", "lib/api/limits.ts"]);
const ENDINGS = ["", ".ts", ".tsx", ".d.ts"];

export type Module = {
  /** Relative to web/, as `features/search/search-page.tsx`. */
  path: string;
  text: string;
  isTest: boolean;
  /** Paths of the app's own modules that it imports, loads later or takes types from. */
  imports: readonly string[];
};

/** Which nodes lead to which. */
export type Graph = ReadonlyMap<string, ReadonlySet<string>>;

/** Reads every module of the app and its tests. Throws when an import leads nowhere. */
export function readModules(): Module[] {
  const files = FOLDERS.flatMap((folder) =>
    readdirSync(path.join(ROOT, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => path.relative(ROOT, path.join(entry.parentPath, entry.name)).split(path.sep).join("/")),
  );
  const known = new Set([...files, ...GENERATED]);
  return files
    .filter((file) => /\.tsx?$/.test(file) && !GENERATED.has(file))
    .map((file) => {
      const text = readFileSync(path.join(ROOT, file), "utf8");
      const imports = specifiersOf(file, text)
        .filter((specifier) => /^(?:\.|@\/)/.test(specifier))
        .map((specifier) => resolve(file, specifier, known));
      // Where tests keep their stand-ins is a test's as well.
      return { path: file, text, isTest: /\.test\.tsx?$|\/testing\/|^test\//.test(file), imports };
    });
}

/** What a module's text imports, by the names it gives. */
export function specifiersOf(file: string, text: string): string[] {
  const { program, errors } = parseSync(file, text);
  if (errors.length > 0) throw new Error(`${file}: ${errors[0]?.message}`);
  const found: string[] = [];
  const add = (source: { type: string; value?: unknown } | null) => {
    if (source?.type === "Literal" && typeof source.value === "string") found.push(source.value);
  };
  new Visitor({
    ImportDeclaration: (node) => add(node.source),
    ExportAllDeclaration: (node) => add(node.source),
    ExportNamedDeclaration: (node) => add(node.source),
    ImportExpression: (node) => add(node.source),
    TSImportType: (node) => add(node.source),
  }).visit(program);
  return found;
}

/** The nodes that lead back to themselves. */
export function inCircles(graph: Graph): string[] {
  return [...graph.keys()].filter((node) => reachableFrom(graph, node).has(node)).sort();
}

/** Everything that a node leads to, over any number of steps. */
export function reachableFrom(graph: Graph, start: string): Set<string> {
  const reached = new Set<string>();
  const open = [start];
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    for (const next of graph.get(node) ?? []) {
      if (!reached.has(next)) open.push(next);
      reached.add(next);
    }
  }
  return reached;
}

function resolve(file: string, specifier: string, known: ReadonlySet<string>): string {
  const base = specifier.startsWith("@/") ? specifier.slice(2) : path.posix.join(path.posix.dirname(file), specifier);
  const found = ENDINGS.map((ending) => base + ending).find((candidate) => known.has(candidate));
  if (found === undefined) throw new Error(`${file} imports ${specifier}, which does not exist`);
  return found;
}
