import { describe, expect, it } from "vitest";
import type { UsageEntry } from "@/lib/api/types";
import {
  byTokens,
  everyDay,
  formatCost,
  formatDay,
  formatShort,
  niceMaximum,
  rangeStart,
  tokensOf,
} from "./usage-data";

const now = new Date("2026-11-20T18:30:00Z");

function entry(key: string, prompt = 0, completion = 0, cost = 0): UsageEntry {
  return { key, runs: 1, prompt_tokens: prompt, completion_tokens: completion, cached_tokens: 0, cost_micro_usd: cost };
}

describe("days", () => {
  it("begins a range at midnight UTC, with today in it", () => {
    expect(rangeStart(7, now).toISOString()).toBe("2026-11-14T00:00:00.000Z");
    expect(rangeStart(30, new Date("2026-11-20T00:00:00Z")).toISOString()).toBe("2026-10-22T00:00:00.000Z");
  });

  it("has an entry for each day, zero where nothing was used", () => {
    const days = everyDay([entry("2026-11-15", 10, 5), entry("2026-11-20", 1, 1)], 7, now);
    expect(days.map((day) => day.key)).toEqual([
      "2026-11-14",
      "2026-11-15",
      "2026-11-16",
      "2026-11-17",
      "2026-11-18",
      "2026-11-19",
      "2026-11-20",
    ]);
    expect(days.map(tokensOf)).toEqual([0, 15, 0, 0, 0, 0, 2]);
  });

  it("leaves out what lies outside of the range", () => {
    expect(everyDay([entry("2026-11-13", 9)], 7, now).map(tokensOf)).toEqual(Array(7).fill(0));
  });

  it("names a UTC day the same in every time zone", () => {
    expect(formatDay("2026-11-20")).toBe("20 Nov");
  });
});

it("puts the most used model first", () => {
  const models = [entry("b", 1), entry("c", 5, 5), entry("a", 1)];
  expect(byTokens(models).map((model) => model.key)).toEqual(["c", "a", "b"]);
  expect(models[0]?.key).toBe("b");
});

it.each([
  [0, 1],
  [1, 1],
  [7, 10],
  [12, 20],
  [21, 25],
  [30, 50],
  [999, 1000],
  [1000, 1000],
  [1001, 2000],
  [250_000, 250_000],
])("ends an axis for %i at %i", (largest, end) => {
  expect(niceMaximum(largest)).toBe(end);
});

it.each([
  [0, "$0.00"],
  [50, "under $0.0001"],
  [100, "$0.0001"],
  [1234, "$0.0012"],
  [120_000, "$0.12"],
  [1_234_567, "$1.23"],
  [1_234_567_890, "$1,234.57"],
])("writes %i millionths of a dollar as %s", (microUsd, text) => {
  expect(formatCost(microUsd)).toBe(text);
});

it("shortens numbers for the axis", () => {
  expect(formatShort(12_500, "tokens")).toBe("12.5K");
  expect(formatShort(2_000_000, "cost")).toBe("$2.00");
});
