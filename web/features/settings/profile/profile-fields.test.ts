import { describe, expect, it } from "vitest";
import type { User } from "@/lib/api/types";
import { withChanges } from "../use-update-me";
import { middleSquare, storedPath } from "./avatar";
import { changesOf, fieldProblems, fieldsOf, statusEnd } from "./profile-fields";

const now = new Date("2026-11-20T12:00:00");

const user: User = {
  id: "u1",
  email: "ada@example.com",
  display_name: "Ada",
  role: "user",
  created_at: null,
  updated_at: null,
  last_login_at: null,
  profile: {
    username: "ada",
    full_name: "",
    avatar_url: "",
    status_text: "Reading",
    status_emoji: "📚",
    status_expires_at: null,
  },
  settings: { theme: "system", notification_preferences: {} },
};

function until(moment: string): User {
  return { ...user, profile: user.profile && { ...user.profile, status_expires_at: moment } };
}

describe("changesOf", () => {
  it("is nothing while nothing changed", () => {
    expect(changesOf(user, fieldsOf(user, now), now)).toBeNull();
  });

  it("holds only what changed", () => {
    const fields = { ...fieldsOf(user, now), display_name: " Ada L. ", username: "Ada.L" };
    expect(changesOf(user, fields, now)).toEqual({ display_name: "Ada L.", profile: { username: "ada.l" } });
  });

  it("sends the whole status, with its end", () => {
    const fields = { ...fieldsOf(user, now), status_text: "Lunch", status_until: "60" };
    expect(changesOf(user, fields, now)).toEqual({
      profile: {
        status_text: "Lunch",
        status_emoji: "📚",
        status_expires_at: new Date("2026-11-20T13:00:00").toISOString(),
      },
    });
  });

  it("keeps the stored end of a status whose text changes", () => {
    const end = new Date("2026-11-21T09:00:00").toISOString();
    const stored = until(end);
    const changes = changesOf(stored, { ...fieldsOf(stored, now), status_text: "Writing" }, now);
    expect(changes?.profile?.status_expires_at).toBe(end);
  });

  it("removes a status without an end", () => {
    const fields = { ...fieldsOf(user, now), status_text: "", status_emoji: "", status_until: "60" };
    expect(changesOf(user, fields, now)).toEqual({ profile: { status_text: "", status_emoji: "" } });
  });
});

it("takes a status whose time is over for none", () => {
  const fields = fieldsOf(until(new Date("2026-11-20T11:59:00").toISOString()), now);
  expect(fields).toMatchObject({ status_text: "", status_emoji: "", status_until: "never" });
});

it("ends a status today or at the end of the week", () => {
  expect(statusEnd({ status_until: "today", status_custom: "" }, now)).toEqual(new Date("2026-11-20T23:59:59"));
  // 2026-11-20 is a Friday.
  expect(statusEnd({ status_until: "week", status_custom: "" }, now)).toEqual(new Date("2026-11-22T23:59:59"));
});

it("finds what is wrong before anything is sent", () => {
  const fields = { ...fieldsOf(user, now), display_name: " ", username: "a b", status_emoji: "xy" };
  expect(Object.keys(definedOf(fieldProblems(fields, now)))).toEqual(["display_name", "username", "status_emoji"]);
  const past = { ...fieldsOf(user, now), status_until: "custom", status_custom: "2026-11-20T11:00" };
  expect(fieldProblems(past, now).status_expires_at).toMatch(/to come/);
  for (const status_emoji of ["", "🏠", "👩‍💻", "🇩🇪", "❤️", "1️⃣"]) {
    expect(fieldProblems({ ...fieldsOf(user, now), status_emoji }, now).status_emoji).toBeUndefined();
  }
});

function definedOf(problems: Partial<Record<string, string>>): Partial<Record<string, string>> {
  return Object.fromEntries(Object.entries(problems).filter(([, problem]) => problem !== undefined));
}

it("shows changes as the server will store them", () => {
  const stored = until("2026-11-21T09:00:00Z");
  expect(withChanges(stored, { profile: { username: "x.y" } }).profile?.status_expires_at).toBe("2026-11-21T09:00:00Z");
  expect(withChanges(stored, { profile: { status_text: "New" } }).profile?.status_expires_at).toBeNull();
  expect(withChanges(stored, { settings: { theme: "dark" } }).settings?.theme).toBe("dark");
});

it("cuts the middle out of a picture", () => {
  expect(middleSquare(400, 300)).toEqual({ x: 50, y: 0, side: 300 });
  expect(middleSquare(300, 401)).toEqual({ x: 0, y: 50, side: 300 });
});

it("removes only the person's own stored pictures", () => {
  const base = "http://127.0.0.1:8001/storage/v1/object/public/avatars/";
  expect(storedPath("u1", `${base}u1/a.webp`)).toBe("u1/a.webp");
  expect(storedPath("u1", `${base}u2/a.webp`)).toBeNull();
  expect(storedPath("u1", "https://example.com/a.webp")).toBeNull();
});
