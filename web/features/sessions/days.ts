import type { Session } from "@/lib/api/types";
import { sentences } from "./sentences";

/** Sessions of one day (in the local time zone), under its name. */
export type SessionDay = { key: string; heading: string; sessions: Session[] };

function dayKey(date: Date): string {
  return `${date.getFullYear()}-${String(date.getMonth() + 1).padStart(2, "0")}-${String(date.getDate()).padStart(2, "0")}`;
}

function daysBefore(now: Date, days: number): Date {
  // By the calendar, not by hours: days with a change of the clock have 23 or 25.
  return new Date(now.getFullYear(), now.getMonth(), now.getDate() - days);
}

const weekdayFormat = new Intl.DateTimeFormat("en", { weekday: "long" });
const dateFormat = new Intl.DateTimeFormat("en", { day: "numeric", month: "long" });
const yearFormat = new Intl.DateTimeFormat("en", { day: "numeric", month: "long", year: "numeric" });

/** "Today", "Yesterday", a weekday within the last week, else the date (with the year when it is another one). */
export function dayHeading(date: Date, now: Date): string {
  const key = dayKey(date);
  // A clock of the server's that is ahead around midnight still means today.
  if (key >= dayKey(now)) return sentences.days.today;
  if (key === dayKey(daysBefore(now, 1))) return sentences.days.yesterday;
  if (key > dayKey(daysBefore(now, 7))) return weekdayFormat.format(date);
  return (date.getFullYear() === now.getFullYear() ? dateFormat : yearFormat).format(date);
}

/** Groups sessions by the day of their last activity, keeping their order. */
export function groupByDay(sessions: readonly Session[], now: Date): SessionDay[] {
  const days: SessionDay[] = [];
  for (const session of sessions) {
    const date = session.updated_at ? new Date(session.updated_at) : now;
    const heading = dayHeading(date, now);
    const last = days.at(-1);
    if (last?.heading === heading) last.sessions.push(session);
    else days.push({ key: `${heading}-${days.length}`, heading, sessions: [session] });
  }
  return days;
}
