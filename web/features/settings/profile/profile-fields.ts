import type { User } from "@/lib/api/types";
import { sentences } from "../sentences";
import type { MeChanges } from "../use-update-me";

/** What the profile form holds. */
export type ProfileFields = {
  display_name: string;
  full_name: string;
  username: string;
  status_text: string;
  status_emoji: string;
  /** When the status ends: a choice below, or `keep` for the moment that is stored. */
  status_until: string;
  /** The moment of the choice `custom`, as the browser's control spells local time. */
  status_custom: string;
};

export const USERNAME_RULE = sentences.profile.usernameRule;
const USERNAME = /^[a-z0-9._-]{3,32}$/;
const EMOJI = /\p{Extended_Pictographic}|\p{Regional_Indicator}|\u20e3/u;

/** For how long a status may last. */
export const STATUS_CHOICES = [
  { value: "never", label: sentences.status.lasts.never },
  { value: "30", label: sentences.status.lasts.halfHour },
  { value: "60", label: sentences.status.lasts.hour },
  { value: "240", label: sentences.status.lasts.fourHours },
  { value: "today", label: sentences.status.lasts.today },
  { value: "week", label: sentences.status.lasts.week },
  { value: "custom", label: sentences.status.lasts.custom },
] as const;

/** The stored account as the form shows it. A status whose time is over counts as none. */
export function fieldsOf(user: User, now: Date): ProfileFields {
  const profile = user.profile;
  const expiresAt = profile?.status_expires_at ?? null;
  const isOver = expiresAt !== null && new Date(expiresAt) <= now;
  const hasEnd = expiresAt !== null && !isOver;
  return {
    display_name: user.display_name,
    full_name: profile?.full_name ?? "",
    username: profile?.username ?? "",
    status_text: isOver ? "" : (profile?.status_text ?? ""),
    status_emoji: isOver ? "" : (profile?.status_emoji ?? ""),
    status_until: hasEnd ? "keep" : "never",
    status_custom: "",
  };
}

/** What is wrong with the fields, as far as that shows without the server. */
export function fieldProblems(fields: ProfileFields, now: Date): Partial<Record<string, string>> {
  const username = fields.username.trim().toLowerCase();
  const end = statusEnd(fields, now);
  return {
    display_name: fields.display_name.trim() ? undefined : sentences.profile.displayNameMissing,
    username: username === "" || USERNAME.test(username) ? undefined : sentences.profile.usernameProblem(USERNAME_RULE),
    status_emoji: isEmojiOrEmpty(fields.status_emoji.trim()) ? undefined : sentences.status.emojiProblem,
    status_expires_at:
      fields.status_until !== "custom"
        ? undefined
        : end === null
          ? sentences.status.momentMissing
          : end <= now
            ? sentences.status.momentPast
            : undefined,
  };
}

/** When the status ends by the choice made; null when it stays, or stays as it is stored. */
export function statusEnd(fields: Pick<ProfileFields, "status_until" | "status_custom">, now: Date): Date | null {
  switch (fields.status_until) {
    case "never":
    case "keep":
      return null;
    case "today":
      return endOfDay(now, 0);
    case "week":
      // Weeks end on Sunday.
      return endOfDay(now, (7 - now.getDay()) % 7);
    case "custom": {
      const moment = new Date(fields.status_custom);
      return Number.isNaN(moment.getTime()) ? null : moment;
    }
    default:
      return new Date(now.getTime() + Number(fields.status_until) * 60_000);
  }
}

/** The changes that the server is asked for; null when nothing changed. */
export function changesOf(user: User, fields: ProfileFields, now: Date): MeChanges | null {
  const before = fieldsOf(user, now);
  const profile: NonNullable<MeChanges["profile"]> = {};
  const username = fields.username.trim().toLowerCase();
  if (username !== before.username) profile.username = username;
  if (fields.full_name.trim() !== before.full_name) profile.full_name = fields.full_name.trim();
  if (isStatusChanged(before, fields)) {
    profile.status_text = fields.status_text.trim();
    profile.status_emoji = fields.status_emoji.trim();
    const isEmpty = !profile.status_text && !profile.status_emoji;
    const end =
      fields.status_until === "keep" ? user.profile?.status_expires_at : statusEnd(fields, now)?.toISOString();
    if (end && !isEmpty) profile.status_expires_at = end;
  }
  const name = fields.display_name.trim();
  const changes: MeChanges = {
    ...(name !== before.display_name ? { display_name: name } : {}),
    ...(Object.keys(profile).length > 0 ? { profile } : {}),
  };
  return Object.keys(changes).length > 0 ? changes : null;
}

function isStatusChanged(before: ProfileFields, after: ProfileFields): boolean {
  return (
    before.status_text !== after.status_text.trim() ||
    before.status_emoji !== after.status_emoji.trim() ||
    before.status_until !== after.status_until
  );
}

function isEmojiOrEmpty(text: string): boolean {
  if (text === "") return true;
  const letters = [...new Intl.Segmenter(undefined, { granularity: "grapheme" }).segment(text)];
  return letters.length === 1 && EMOJI.test(text);
}

function endOfDay(day: Date, daysLater: number): Date {
  return new Date(day.getFullYear(), day.getMonth(), day.getDate() + daysLater, 23, 59, 59);
}
