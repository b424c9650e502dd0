import { describe, expect, it } from "vitest";
import { cpuTime } from "@/test/cpu-time";
import { messageOf } from "../testing/stored";
import {
  activePath,
  alternativesOf,
  EMPTY_WINDOW,
  type MessageWindow,
  windowOf,
  withBranch,
  withEarlier,
  withLater,
  withLeaf,
  withNewest,
  withStored,
} from "./message-window";

const range = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, place) => messageOf(from + place));
const whole = (messages: Parameters<typeof windowOf>[0]) => windowOf(messages, { hasEarlier: false, hasLater: false });
const path = (window: MessageWindow) => activePath(window).map((message) => message.id);

// m1 - m2 - m3 - m4; m5 answers m1 anew, m6 - m7 follow it; m8 takes the place of m3.
const FORKED = [
  messageOf(1),
  messageOf(2, { is_active: false }),
  messageOf(3, { is_active: false }),
  messageOf(4, { is_active: false }),
  messageOf(5, { role: "assistant", parent_id: "m1" }),
  messageOf(6, { role: "user", parent_id: "m5" }),
  messageOf(7, { role: "assistant", parent_id: "m6" }),
  messageOf(8, { role: "user", parent_id: "m2", is_active: false }),
];

describe("pages", () => {
  it("make a window in any order", () => {
    const window = whole(range(1, 4).reverse());
    expect(path(window)).toEqual(["m1", "m2", "m3", "m4"]);
  });

  it("come before and behind", () => {
    let window = windowOf(range(5, 6), { hasEarlier: true, hasLater: true });
    window = withEarlier(window, range(3, 5), true);
    window = withLater(window, range(6, 8), false);
    expect(path(window)).toEqual(["m3", "m4", "m5", "m6", "m7", "m8"]);
    expect(window).toMatchObject({ hasEarlier: true, hasLater: false });
    window = withEarlier(window, range(1, 2), false);
    expect(path(window)).toHaveLength(8);
    expect(window.hasEarlier).toBe(false);
  });

  it("behind that hold only other branches leave the branch as it is", () => {
    const window = withLater(whole(range(1, 2)), [messageOf(3, { is_active: false })], false);
    expect(path(window)).toEqual(["m1", "m2"]);
  });

  it("of an empty session show nothing", () => {
    expect(path(EMPTY_WINDOW)).toEqual([]);
    expect(withNewest(EMPTY_WINDOW, [], false).messages).toEqual([]);
  });
});

describe("the newest messages, read again", () => {
  it("are joined to what is there, and known messages stay the same objects", () => {
    const window = windowOf(range(1, 4), { hasEarlier: false, hasLater: false });
    const next = withNewest(window, range(3, 6), true);
    expect(path(next)).toEqual(["m1", "m2", "m3", "m4", "m5", "m6"]);
    expect(next.byId.get("m3")).toBe(window.byId.get("m3"));
    expect(next.hasEarlier).toBe(false);
  });

  it("take the place of what they do not touch", () => {
    const next = withNewest(whole(range(1, 4)), range(90, 92), true);
    expect(path(next)).toEqual(["m90", "m91", "m92"]);
    expect(next.hasEarlier).toBe(true);
  });

  it("show the branch that another tab has selected", () => {
    const window = whole(FORKED);
    const others = FORKED.map((message) => ({ ...message, is_active: ["m1", "m2", "m8"].includes(message.id) }));
    expect(path(withNewest(window, others, false))).toEqual(["m1", "m2", "m8"]);
  });
});

describe("a message that was just stored", () => {
  it("is the new end", () => {
    expect(path(withStored(whole(range(1, 2)), messageOf(3)) ?? EMPTY_WINDOW)).toEqual(["m1", "m2", "m3"]);
  });

  it("of another branch shows that branch", () => {
    const edited = messageOf(5, { role: "user", parent_id: "m2" });
    expect(path(withStored(whole(range(1, 4)), edited) ?? EMPTY_WINDOW)).toEqual(["m1", "m2", "m5"]);
  });

  it("that is known becomes the end again", () => {
    expect(path(withStored(whole(range(1, 4)), messageOf(3)) ?? EMPTY_WINDOW)).toEqual(["m1", "m2", "m3"]);
  });

  it("is refused where messages between are missing", () => {
    expect(withStored(whole(range(1, 2)), messageOf(5))).toBeNull();
    expect(withStored(windowOf(range(1, 2), { hasEarlier: false, hasLater: true }), messageOf(3))).toBeNull();
  });
});

describe("branches", () => {
  const window = whole(FORKED);
  const alternatives = (id: string) => {
    const message = window.byId.get(id);
    return message === undefined ? undefined : alternativesOf(window, message);
  };

  it("show the active one", () => {
    expect(path(window)).toEqual(["m1", "m5", "m6", "m7"]);
  });

  it("are alternatives where they have the same parent", () => {
    expect(alternatives("m5")).toEqual({ ids: ["m2", "m5"], index: 1 });
    expect(alternatives("m3")).toEqual({ ids: ["m3", "m8"], index: 0 });
    expect(alternatives("m1")).toBeNull();
    expect(alternatives("m7")).toBeNull();
  });

  it("are selected as the server does: the newest at each fork", () => {
    expect(path(withBranch(window, "m2"))).toEqual(["m1", "m2", "m8"]);
    expect(path(withBranch(window, "m3"))).toEqual(["m1", "m2", "m3", "m4"]);
  });

  it("may end anywhere, and at nothing", () => {
    expect(path(withLeaf(window, "m6"))).toEqual(["m1", "m5", "m6"]);
    expect(path(withLeaf(window, null))).toEqual([]);
  });

  it("are not counted while some may not be loaded", () => {
    const late = windowOf([messageOf(9, { parent_id: "m2" }), messageOf(10, { parent_id: "m2" })], {
      hasEarlier: true,
      hasLater: false,
    });
    const message = late.messages[0];
    expect(message && alternativesOf(late, message)).toBeNull();
    const roots = [messageOf(1), messageOf(2, { role: "user", parent_id: "" })];
    const all = whole(roots);
    expect(all.messages[1] && alternativesOf(all, all.messages[1])).toEqual({ ids: ["m1", "m2"], index: 1 });
    const some = windowOf(roots, { hasEarlier: true, hasLater: false });
    expect(some.messages[1] && alternativesOf(some, some.messages[1])).toBeNull();
  });
});

it("ten thousand messages are put together with little work", async () => {
  let window = windowOf(range(9951, 10_000), { hasEarlier: true, hasLater: false });
  const took = await cpuTime(() => {
    for (let low = 9851; low > 0; low -= 100) window = withEarlier(window, range(low, low + 99), low > 51);
  });
  expect(activePath(window).length).toBeGreaterThan(9900);
  expect(took).toBeLessThan(4000);
});
