/** The numbers behind the usage chart. */
import { api, unwrap } from "@/lib/api/client";
import type { UsageEntry } from "@/lib/api/types";
import { sentences } from "./sentences";

/** How many days back, today among them. */
export const RANGES = [7, 30, 90] as const;
export type Range = (typeof RANGES)[number];

/** What a bar's height says. */
export type Measure = "tokens" | "cost";

export type Usage = { days: UsageEntry[]; models: UsageEntry[]; total: UsageEntry };

const DAY_MS = 86_400_000;
const EMPTY = { runs: 0, prompt_tokens: 0, completion_tokens: 0, cached_tokens: 0, cost_micro_usd: 0 };
// Models are few; this only keeps a fault from asking forever.
const MOST_PAGES = 20;

/** The first moment of the oldest day of a range. Days are UTC, as the server counts them. */
export function rangeStart(range: Range, now: Date): Date {
  return new Date(Math.floor(now.getTime() / DAY_MS) * DAY_MS - (range - 1) * DAY_MS);
}

/** One entry for each day of a range, oldest first; days without use are zero. */
export function everyDay(entries: readonly UsageEntry[], range: Range, now: Date): UsageEntry[] {
  const known = new Map(entries.map((entry) => [entry.key, entry]));
  const start = rangeStart(range, now).getTime();
  return Array.from({ length: range }, (_, index) => {
    const key = new Date(start + index * DAY_MS).toISOString().slice(0, 10);
    return known.get(key) ?? { key, ...EMPTY };
  });
}

/** Most used first. */
export function byTokens(entries: readonly UsageEntry[]): UsageEntry[] {
  return [...entries].sort((one, other) => tokensOf(other) - tokensOf(one) || one.key.localeCompare(other.key));
}

export function tokensOf(entry: UsageEntry): number {
  return entry.prompt_tokens + entry.completion_tokens;
}

/** The value that a bar shows. */
export function measured(entry: UsageEntry, measure: Measure): number {
  return measure === "tokens" ? tokensOf(entry) : entry.cost_micro_usd;
}

/** The end of an axis: the least of 1, 2, 2.5 and 5 times a power of ten that holds the largest value. */
export function niceMaximum(largest: number): number {
  if (largest <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(largest));
  for (const step of [1, 2, 2.5, 5, 10]) {
    // Fractions of powers of ten are not exact.
    if (step * power >= largest * (1 - 1e-9)) return step * power;
  }
  return 10 * power;
}

/** Millionths of a dollar in dollars, with as many digits as small sums need. */
export function formatCost(microUsd: number): string {
  const dollars = microUsd / 1_000_000;
  if (dollars > 0 && dollars < 0.0001) return sentences.costUnder("$0.0001");
  const digits = dollars === 0 || dollars >= 1 ? 2 : 4;
  return new Intl.NumberFormat("en-US", {
    style: "currency",
    currency: "USD",
    minimumFractionDigits: 2,
    maximumFractionDigits: digits,
  }).format(dollars);
}

export function formatNumber(value: number): string {
  return new Intl.NumberFormat("en-US").format(value);
}

/** Short numbers for axes: 12K, 3.4M. */
export function formatShort(value: number, measure: Measure): string {
  if (measure === "cost") return formatCost(value);
  return new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 }).format(value);
}

/** A day as people write it; the key is a UTC day and stays one. */
export function formatDay(key: string): string {
  const options = { day: "numeric", month: "short", timeZone: "UTC" } as const;
  return new Intl.DateTimeFormat("en-GB", options).format(new Date(`${key}T00:00:00Z`));
}

/** Asks for what was used in a range, per day and per model. Throws ApiError. */
export async function fetchUsage(range: Range, signal: AbortSignal): Promise<Usage> {
  const now = new Date();
  const from = rangeStart(range, now).toISOString();
  const [days, models] = await Promise.all([fetchEntries(from, "day", signal), fetchEntries(from, "model", signal)]);
  return { days: everyDay(days.entries, range, now), models: byTokens(models.entries), total: days.total };
}

async function fetchEntries(from: string, groupBy: "day" | "model", signal: AbortSignal) {
  const entries: UsageEntry[] = [];
  let total: UsageEntry | null = null;
  let token = "";
  for (let page = 0; page < MOST_PAGES; page += 1) {
    const query = { from, group_by: groupBy, page_size: 366, ...(token ? { page_token: token } : {}) };
    const answer = await unwrap(api.GET("/usage", { params: { query }, signal }));
    entries.push(...answer.entries);
    total = answer.total;
    token = answer.next_page_token;
    if (!token) break;
  }
  return { entries, total: total ?? { key: "", ...EMPTY } };
}
