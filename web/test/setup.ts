import "@testing-library/jest-dom/vitest";
import { cleanup, configure } from "@testing-library/react";
import { afterAll, afterEach, vi } from "vitest";
import { PATIENCE_MS } from "./until";

// A busy machine is no mistake of the page's.
configure({ asyncUtilTimeout: PATIENCE_MS });
afterEach(cleanup);
// The next file's tests may run in the same process.
afterAll(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
  // Files that read sources run without a document.
  if (typeof window === "undefined") return;
  localStorage.clear();
  sessionStorage.clear();
});
