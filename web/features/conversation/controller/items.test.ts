import { describe, expect, it } from "vitest";
import type { Message } from "@/lib/api/types";
import { messageOf } from "../testing/stored";
import { type ConversationItem, ItemBuilder } from "./items";
import { windowOf, withBranch, withEarlier, withStored } from "./message-window";

const whole = (messages: Message[]) => windowOf(messages, { hasEarlier: false, hasLater: false });
const build = (messages: Message[]): ConversationItem[] => new ItemBuilder(new Map()).build(whole(messages));

const WITH_TOOLS = [
  messageOf(1),
  messageOf(2, {
    content: "I look.",
    metadata: {
      run_id: "r1",
      tool_calls: [
        { id: "c1", name: "search", args: { q: "x" }, type: "tool_call" },
        { id: "c2", name: "ask", args: {} },
      ],
    },
  }),
  messageOf(3, { role: "tool", content: "found", metadata: { run_id: "r1", tool_call_id: "c1", name: "search" } }),
  messageOf(4, {
    role: "tool",
    content: "broken",
    metadata: { run_id: "r1", tool_call_id: "c2", langchain: { status: "error" } },
  }),
  messageOf(5, {
    role: "assistant",
    content: "Here.",
    metadata: {
      run_id: "r1",
      model: "m",
      partial: true,
      error_reason: "MODEL_TIMEOUT",
      usage: { prompt_tokens: 3, completion_tokens: 4, estimated: true },
    },
  }),
];

describe("items", () => {
  it("fold tools into the answer that follows them", () => {
    const [asked, answer] = build(WITH_TOOLS);
    expect(asked).toMatchObject({ kind: "user", key: "after:" });
    expect(answer).toMatchObject({
      kind: "answer",
      key: "after:m1",
      answers: "m1",
      parts: [
        { kind: "text", text: "I look." },
        { kind: "tool", call: { id: "c1", name: "search", arguments: { q: "x" }, output: "found", isError: false } },
        { kind: "tool", call: { id: "c2", name: "ask", output: "broken", isError: true } },
        { kind: "text", text: "Here." },
      ],
      notes: { isPartial: true, errorReason: "MODEL_TIMEOUT", completionTokens: 4, isEstimated: true, model: "m" },
    });
  });

  it("show tools of which no answer came, and results without a call", () => {
    expect(build(WITH_TOOLS.slice(0, 2))).toHaveLength(2);
    const [, answer] = build([
      messageOf(1),
      messageOf(2, { role: "tool", content: "x", metadata: { name: "search" } }),
    ]);
    expect(answer).toMatchObject({ kind: "answer", parts: [{ kind: "tool", call: { name: "search", output: "x" } }] });
  });

  it("believe nothing of metadata's shape", () => {
    const strange = { run_id: 7, tool_calls: [3, null, { name: {} }], usage: "many", partial: "yes" };
    const items = build([messageOf(1), messageOf(2, { metadata: strange })]);
    expect(items[1]).toMatchObject({ key: "after:m1", notes: { isPartial: false, completionTokens: 0 } });
  });

  it("keep their key in every version, so that what has the focus keeps it", () => {
    const messages = [messageOf(1), messageOf(2), messageOf(3, { role: "assistant", parent_id: "m1" })];
    const window = whole(messages);
    const builder = new ItemBuilder(new Map());
    const keys = (leaf: string) => builder.build(withBranch(window, leaf)).map((item) => item.key);
    expect(keys("m2")).toEqual(keys("m3"));
    expect(new Set(keys("m2")).size).toBe(2);
  });

  it("show the system's words as notes", () => {
    const items = build([messageOf(1, { role: "system", content: "", metadata: { history_cleared: true } })]);
    expect(items[0]).toMatchObject({ kind: "note" });
  });

  it("stay the same objects while they say the same", () => {
    const builder = new ItemBuilder(new Map());
    const window = windowOf([messageOf(3), messageOf(4)], { hasEarlier: true, hasLater: false });
    const first = builder.build(window);
    const earlier = withEarlier(window, [messageOf(1), messageOf(2)], false);
    const second = builder.build(earlier);
    expect(second.slice(2)).toEqual(first);
    expect(second[2]).toBe(first[0]);
    expect(second[3]).toBe(first[1]);
    const stored = withStored(earlier, messageOf(5, { role: "assistant", parent_id: "m3" }));
    const third = builder.build(stored ?? earlier);
    expect(third[0]).toBe(second[0]);
    expect(third[3]).toMatchObject({ message: { id: "m5" }, alternatives: { ids: ["m4", "m5"], index: 1 } });
  });

  it("keep the key under which they were shown before they were stored", () => {
    const aliases = new Map([["m1", "answer:req"]]);
    const items = new ItemBuilder(aliases).build(whole([messageOf(1), messageOf(2)]));
    expect(items.map((item) => item.key)).toEqual(["after:", "answer:req"]);
  });
});
