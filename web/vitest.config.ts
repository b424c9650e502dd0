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
    reporters: ["default", "./scripts/count-reporter.mjs"],
  },
});
