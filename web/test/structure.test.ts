// @vitest-environment node
import path from "node:path";
import { expect, it } from "vitest";
import { type Graph, inCircles, reachableFrom, readModules, specifiersOf } from "./modules";

const MODULES_IN_A_FOLDER = 16;
const modules = readModules();
const code = modules.filter((module) => !module.isTest);
const imports: Graph = new Map(modules.map((module) => [module.path, new Set(module.imports)]));

/** The part of the app that a module belongs to: a feature, the pages, what features share, or what tests share. */
function partOf(file: string): string {
  const [top = "", name = ""] = file.split("/");
  if (top === "features") return `features/${name}`;
  return top === "app" || top === "test" ? top : "shared";
}

function graphOfParts(): Graph {
  const graph = new Map<string, Set<string>>();
  for (const module of code) {
    const part = partOf(module.path);
    const others = module.imports.map(partOf).filter((other) => other !== part);
    graph.set(part, new Set([...(graph.get(part) ?? []), ...others]));
  }
  return graph;
}

it("reads imports of every kind", () => {
  const text = `
    import { a } from "./a";
    import type { B } from "@/b";
    export * from "./c";
    export { d } from "./d";
    const e = () => import("./e");
    type F = typeof import("./f");
  `;
  expect(specifiersOf("x.ts", text)).toEqual(["./a", "@/b", "./c", "./d", "./e", "./f"]);
  expect(modules.length).toBeGreaterThan(100);
});

it("finds circles of any length", () => {
  const graph = new Map(
    Object.entries({ a: ["b"], b: ["c"], c: ["a"], d: ["a"], e: ["e"] }).map(([k, v]) => [k, new Set(v)]),
  );
  expect(inCircles(graph)).toEqual(["a", "b", "c", "e"]);
});

it("no module imports itself by way of others, not even a type", () => {
  expect(inCircles(imports)).toEqual([]);
});

it("no feature imports another one that imports it", () => {
  expect(inCircles(graphOfParts())).toEqual([]);
});

it("what features share imports no feature and no page", () => {
  expect([...(graphOfParts().get("shared") ?? [])]).toEqual([]);
});

it("pages are imported by nothing", () => {
  const importers = code.filter((module) => partOf(module.path) !== "app");
  expect(importers.filter((module) => module.imports.some((each) => partOf(each) === "app"))).toEqual([]);
});

it("what stands in lib and components/ui is used by two features, or by a page and a feature", () => {
  // Used also by way of another shared module; a test's use counts for the feature whose test it is.
  const shared = new Map([...imports].filter(([file]) => partOf(file) === "shared"));
  const users = new Map(code.filter((module) => partOf(module.path) === "shared").map(({ path }) => [path, new Set()]));
  for (const module of modules) {
    const user = partOf(module.path);
    if (user === "shared" || user === "test") continue;
    for (const used of module.imports) {
      for (const each of [used, ...reachableFrom(shared, used)]) users.get(each)?.add(user);
    }
  }
  const lonely = [...users].filter(([, names]) => names.size < 2).map(([file, names]) => `${file}: ${[...names]}`);
  expect(users.size).toBeGreaterThan(20);
  expect(lonely).toEqual([]);
});

it("features are folders, and all that is shared among components is components/ui", () => {
  const folders = code.map(({ path: file }) => file.split("/"));
  expect(folders.filter(([top, , ...rest]) => top === "features" && rest.length === 0)).toEqual([]);
  expect(folders.filter(([top, second]) => top === "components" && second !== "ui")).toEqual([]);
});

it(`a folder holds at most ${MODULES_IN_A_FOLDER} modules besides its folders and tests`, () => {
  const counts = new Map<string, number>();
  for (const module of code) {
    const folder = path.posix.dirname(module.path);
    counts.set(folder, (counts.get(folder) ?? 0) + 1);
  }
  expect([...counts].filter(([, count]) => count > MODULES_IN_A_FOLDER)).toEqual([]);
});

it("every feature has its catalogue, which other features do not read", () => {
  const features = new Set(code.map(({ path }) => partOf(path)).filter((part) => part.startsWith("features/")));
  const catalogues = new Set(code.map(({ path }) => path).filter((file) => file.endsWith("/sentences.ts")));
  expect([...features].filter((feature) => !catalogues.has(`${feature}/sentences.ts`))).toEqual([]);
  const readElsewhere = code.flatMap((module) =>
    module.imports
      .filter((file) => catalogues.has(file) && partOf(file).startsWith("features/"))
      .filter((file) => partOf(module.path) !== "app" && partOf(module.path) !== partOf(file))
      .map((file) => `${module.path} reads ${file}`),
  );
  expect(readElsewhere).toEqual([]);
});
