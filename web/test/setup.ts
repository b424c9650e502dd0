import "@testing-library/jest-dom/vitest";
import { cleanup, configure } from "@testing-library/react";
import { afterEach } from "vitest";
import { PATIENCE_MS } from "./until";

// A busy machine is no mistake of the page's.
configure({ asyncUtilTimeout: PATIENCE_MS });
afterEach(cleanup);
