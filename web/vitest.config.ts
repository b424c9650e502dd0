import path from "node:path";
import { defineConfig } from "vitest/config";

export default defineConfig({
  oxc: { jsx: { runtime: "automatic" } },
  resolve: { alias: { "@": path.resolve(import.meta.dirname) } },
  test: {
    environment: "jsdom",
    setupFiles: ["test/setup.ts"],
    include: ["{app,components,features,lib,test}/**/*.test.{ts,tsx}"],
    css: false,
    // For what never ends; no test is to be quick.
    testTimeout: 60_000,
    // One process a file, so that a process's CPU time is that of its tests.
    pool: "forks",
    reporters: ["default", "./scripts/count-reporter.mjs"],
  },
});
