// @vitest-environment node
import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { made } from "../scripts/fonts.mjs";

test("the fonts are what the script makes of the packages", async () => {
  const names: string[] = [];
  for await (const [name, contents] of made()) {
    names.push(name);
    expect(readFileSync(`fonts/${name}`).equals(Buffer.from(contents)), name).toBe(true);
  }
  expect(readdirSync("fonts").sort()).toEqual(names.sort());
});

test("a first chat with code loads at most 60 kB of fonts", () => {
  const bytes = ["sans", "serif", "mono"].map((name) => readFileSync(`fonts/${name}.woff2`).length);
  expect(bytes.reduce((sum, size) => sum + size)).toBeLessThanOrEqual(60_000);
});
