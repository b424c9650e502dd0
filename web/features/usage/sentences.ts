import type { Catalogue } from "@/lib/catalogue";

/** What the figures of usage say. */
export const sentences = {
  time: "Time",
  days: (count: number) => `${count} days`,
  show: "Show",
  measures: { tokens: "Tokens", cost: "Cost" },
  loadFailed: "The usage could not be loaded.",
  nothing: "No answers in this time",
  nothingHint: "What your chats use shows here, by day and by model. Choose a longer time, or start a chat.",
  chartTitle: (measure: string, from: string, to: string, tokens: string, cost: string) =>
    `${measure} per day, ${from} to ${to}: ${tokens} tokens, ${cost} in all`,
  bar: (day: string, answers: string, tokens: string, cost: string) => `${day}: ${answers}, ${tokens} tokens, ${cost}`,
  answerCount: (count: number, written: string) => (count === 1 ? "1 answer" : `${written} answers`),
  costUnder: (sum: string) => `under ${sum}`,
  columns: { answers: "Answers", promptTokens: "Prompt tokens", answerTokens: "Answer tokens", cost: "Cost" },
  total: "Total",
  byDay: "By day",
  byDayHint: "Days are counted in UTC, not in your time zone.",
  showTable: "Show the days as a table",
  dayTable: "Usage by day",
  day: "Day (UTC)",
  byModel: "By model",
  modelTable: "Usage by model",
  model: "Model",
  unknownModel: "Unknown",
} as const satisfies Catalogue;
