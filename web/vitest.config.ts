import { globSync, readFileSync } from "node:fs";
import path from "node:path";
import { defineConfig } from "vitest/config";

const files = globSync("{app,components,features,lib,test}/**/*.test.{ts,tsx}", { cwd: import.meta.dirname });
/** Whether a file puts modules in the place of others, which only works in a process where nothing has loaded them. */
const replacesModules = (file: string) =>
  readFileSync(path.join(import.meta.dirname, file), "utf8").includes("vi.mock(");

export default defineConfig({
  oxc: { jsx: { runtime: "automatic" } },
  resolve: { alias: { "@": path.resolve(import.meta.dirname) } },
  test: {
    environment: "jsdom",
    setupFiles: ["test/setup.ts"],
    css: false,
    // For what never ends; no test is to be quick.
    testTimeout: 600_000,
    // One file at a time in a process, so that the process's CPU time is that of its tests.
    pool: "forks",
    reporters: ["default", "./scripts/count-reporter.mjs"],
    // A process and a document for each file would take more time than the tests.
    projects: [
      {
        extends: true,
        test: { name: "shared", include: files.filter((each) => !replacesModules(each)), isolate: false },
      },
      { extends: true, test: { name: "isolated", include: files.filter(replacesModules) } },
    ],
  },
});
