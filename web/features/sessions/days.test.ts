import { expect, test } from "vitest";
import { dayHeading, groupByDay } from "./days";
import { makeSession } from "./testing/fake-gateway";

const now = new Date(2026, 10, 20, 15, 30);

test.each([
  [new Date(2026, 10, 20, 0, 0), "Today"],
  [new Date(2026, 10, 21, 0, 1), "Today"],
  [new Date(2026, 10, 19, 23, 59, 59), "Yesterday"],
  [new Date(2026, 10, 18, 12), "Wednesday"],
  [new Date(2026, 10, 14, 12), "Saturday"],
  [new Date(2026, 10, 13, 12), "November 13"],
  [new Date(2025, 11, 31, 12), "December 31, 2025"],
])("%s is headed %s", (date, heading) => {
  expect(dayHeading(date, now)).toBe(heading);
});

test("a change of the clock does not move a day", () => {
  // In zones with daylight saving, the last Sunday of October has 25 hours.
  expect(dayHeading(new Date(2026, 9, 24, 23, 30), new Date(2026, 9, 25, 23, 30))).toBe("Yesterday");
});

test("sessions are grouped by the day of the local time zone, in their order", () => {
  const at = (date: Date, minute: number) => makeSession(minute, { updated_at: date.toISOString() });
  const days = groupByDay(
    [at(new Date(2026, 10, 20, 9), 1), at(new Date(2026, 10, 20, 0, 30), 2), at(new Date(2026, 10, 19, 23, 30), 3)],
    now,
  );
  expect(days.map((day) => [day.heading, day.sessions.map((session) => session.name)])).toEqual([
    ["Today", ["Chat 1", "Chat 2"]],
    ["Yesterday", ["Chat 3"]],
  ]);
});
