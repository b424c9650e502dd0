import { QueryClient } from "@tanstack/react-query";
import { beforeEach, describe, expect, test, vi } from "vitest";
import type { Session } from "@/lib/api/types";
import { announce } from "@/lib/broadcast";
import { until } from "@/test/until";
import { makeSession } from "../testing/fake-gateway";
import {
  cachedSession,
  compareSessions,
  dropSession,
  putSession,
  type SessionFilter,
  type SessionPages,
  sessionKeys,
  upsertSession,
} from "./cache";

let queryClient: QueryClient;

beforeEach(() => {
  queryClient = new QueryClient();
});

function fill(filter: SessionFilter, ...pages: Session[][]): void {
  queryClient.setQueryData<SessionPages>(sessionKeys.list(filter), {
    pageParams: pages.map((_, index) => (index ? String(index) : "")),
    pages: pages.map((sessions, index) => ({
      sessions,
      next_page_token: index < pages.length - 1 ? String(index + 1) : "",
    })),
  });
}

/** Says that there is more than the loaded pages. */
function leaveMore(filter: SessionFilter): void {
  queryClient.setQueryData<SessionPages>(
    sessionKeys.list(filter),
    (pages) => pages && { ...pages, pages: pages.pages.map((page) => ({ ...page, next_page_token: "more" })) },
  );
}

function names(filter: SessionFilter): string[][] | undefined {
  return queryClient
    .getQueryData<SessionPages>(sessionKeys.list(filter))
    ?.pages.map((page) => page.sessions.map((session) => session.name));
}

const all: SessionFilter = { archived: false, query: "" };
const archive: SessionFilter = { archived: true, query: "" };

describe("order", () => {
  test("the newest activity comes first, to the microsecond, however many decimals are written", () => {
    const times = [
      "2026-11-20T10:00:00Z",
      "2026-11-20T10:00:00.000001Z",
      "2026-11-20T10:00:00.5Z",
      "2026-11-20T09:59:59.999999Z",
    ];
    const sorted = times.map((updated_at) => makeSession(1, { updated_at })).sort(compareSessions);
    expect(sorted.map((session) => session.updated_at)).toEqual([times[2], times[1], times[0], times[3]]);
  });

  test("a session that was used moves to the top, across pages, and is there once", () => {
    fill(all, [makeSession(9), makeSession(8)], [makeSession(7), makeSession(6)]);
    upsertSession(queryClient, makeSession(6, { updated_at: "2026-11-20T11:00:00Z", name: "Chat 6 again" }));
    expect(names(all)).toEqual([["Chat 6 again", "Chat 9", "Chat 8"], ["Chat 7"]]);
  });

  test("a new session goes to the top of an empty list", () => {
    fill(all, []);
    upsertSession(queryClient, makeSession(1, { name: "" }));
    expect(names(all)).toEqual([[""]]);
  });

  test("an older session is put at its place, or left to the page that is not loaded yet", () => {
    fill(all, [makeSession(9), makeSession(5)]);
    putSession(queryClient, makeSession(7));
    expect(names(all)).toEqual([["Chat 9", "Chat 7", "Chat 5"]]);
    putSession(queryClient, makeSession(1));
    expect(names(all)).toEqual([["Chat 9", "Chat 7", "Chat 5", "Chat 1"]]);
    leaveMore(all);
    putSession(queryClient, makeSession(0));
    expect(names(all)?.flat()).not.toContain("Chat 0");
  });
});

test("other tabs hear of what is new, and of nothing else", async () => {
  const heard = vi.fn();
  const otherTab = new BroadcastChannel("concerto");
  otherTab.onmessage = (event: MessageEvent<unknown>) => heard(event.data);
  fill(all, [makeSession(9)]);
  upsertSession(queryClient, makeSession(9));
  upsertSession(queryClient, makeSession(9, { name: "Better" }));
  upsertSession(queryClient, makeSession(9, { name: "Better" }));
  // Announcements arrive in their order: behind this one nothing is on its way.
  announce({ kind: "signed-out" });
  await until(() => expect(heard).toHaveBeenCalledWith({ kind: "signed-out" }));
  otherTab.close();
  expect(heard.mock.calls).toEqual([[{ kind: "sessions-changed" }], [{ kind: "signed-out" }]]);
});

describe("lists", () => {
  test("an archived session moves between the lists, and back", () => {
    fill(all, [makeSession(9), makeSession(8)]);
    fill(archive, [makeSession(5, { is_archived: true })]);
    putSession(queryClient, makeSession(8, { is_archived: true }));
    expect([names(all), names(archive)]).toEqual([[["Chat 9"]], [["Chat 8", "Chat 5"]]]);
    putSession(queryClient, makeSession(8));
    expect([names(all), names(archive)]).toEqual([[["Chat 9", "Chat 8"]], [["Chat 5"]]]);
  });

  test("filtered lists hold the names that fit, with umlauts, ignoring case and how they are composed", () => {
    const umlauts: SessionFilter = { archived: false, query: "Übung" };
    fill(all, []);
    fill(umlauts, []);
    putSession(queryClient, makeSession(1, { name: "Französisch: übungen" }));
    putSession(queryClient, makeSession(2, { name: "U\u0308BUNG" }));
    putSession(queryClient, makeSession(3, { name: "Ubung" }));
    expect(names(umlauts)).toEqual([["U\u0308BUNG", "Französisch: übungen"]]);
    putSession(queryClient, makeSession(1, { name: "Französisch" }));
    expect(names(umlauts)).toEqual([["U\u0308BUNG"]]);
    expect(names(all)?.flat()).toHaveLength(3);
  });

  test("a deleted session is nowhere any more", () => {
    fill(all, [makeSession(9), makeSession(8)]);
    putSession(queryClient, makeSession(8));
    dropSession(queryClient, makeSession(8).id);
    expect(names(all)).toEqual([["Chat 9"]]);
    expect(cachedSession(queryClient, makeSession(8).id)).toBeUndefined();
  });

  test("a list that does not change stays the same object, so that nothing is drawn anew", () => {
    fill(archive, [makeSession(5, { is_archived: true })]);
    const before = queryClient.getQueryData(sessionKeys.list(archive));
    putSession(queryClient, makeSession(8));
    expect(queryClient.getQueryData(sessionKeys.list(archive))).toBe(before);
  });
});
