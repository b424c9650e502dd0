import { describe, expect, it } from "vitest";
import { messageOf } from "../testing/stored";
import { type RunEvent, toRunEvent } from "./run-events";
import { giveUpMissing, reduceTurn, reduceTurnEvents, resume, START_OF_TURN, type TurnState } from "./run-reducer";

const started = (seq: number): RunEvent => ({
  seq,
  type: "run.started",
  data: { run_id: "r1", session_id: "s1", user_message: messageOf(1), model: "m", agent: "a" },
});
const delta = (seq: number, text: string): RunEvent => ({ seq, type: "message.delta", data: { text } });
const completed = (seq: number, content: string): RunEvent => ({
  seq,
  type: "message.completed",
  data: { message: messageOf(2, { content }) },
});
const finished = (seq: number, state: "SUCCEEDED" | "FAILED" | "CANCELLED" = "SUCCEEDED"): RunEvent => ({
  seq,
  type: "run.finished",
  data: { state },
});

const WHOLE = [started(1), delta(2, "Hel"), delta(3, "lo"), delta(4, " you"), completed(5, "Hello you"), finished(6)];
const stateAfter = (...events: RunEvent[]): TurnState => reduceTurnEvents(START_OF_TURN, events);
const textOf = (state: TurnState) => state.parts.map((part) => (part.kind === "text" ? part.text : "|")).join("");

describe("a run in order", () => {
  it("becomes an answer", () => {
    const state = stateAfter(...WHOLE);
    expect(textOf(state)).toBe("Hello you");
    expect(state).toMatchObject({ lastSeq: 6, phase: "finished", outcome: "SUCCEEDED", model: "m", agent: "a" });
    expect(state.userMessage?.id).toBe("m1");
    expect(state.message?.content).toBe("Hello you");
    expect(state.needsReload).toBe(false);
  });

  it("is the same however it is cut into batches", () => {
    for (let cut = 0; cut <= WHOLE.length; cut += 1) {
      expect(reduceTurnEvents(stateAfter(...WHOLE.slice(0, cut)), WHOLE.slice(cut))).toEqual(stateAfter(...WHOLE));
    }
  });

  it("keeps what it does not change", () => {
    const one = stateAfter(started(1), delta(2, "a"));
    const two = reduceTurnEvents(one, [{ seq: 3, type: "unknown" }]);
    expect(two.parts).toBe(one.parts);
    expect(two.lastSeq).toBe(3);
  });
});

describe("thoughts", () => {
  const thought = (seq: number, text: string): RunEvent => ({ seq, type: "reasoning.delta", data: { text } });
  const at = (...timed: [RunEvent, number][]): TurnState =>
    timed.reduce((state, [event, now]) => reduceTurn(state, event, now), START_OF_TURN);

  it("stand before the text that they led to, with their time", () => {
    const thinking = at([started(1), 0], [thought(2, "Hm"), 1000], [thought(3, "m."), 9000]);
    expect(thinking.parts).toEqual([{ kind: "thought", text: "Hmm.", since: 1000, milliseconds: null }]);
    const answered = reduceTurn(thinking, delta(4, "Yes"), 13_000);
    expect(answered.parts).toEqual([
      { kind: "thought", text: "Hmm.", since: 1000, milliseconds: 12_000 },
      { kind: "text", text: "Yes" },
    ]);
    expect(reduceTurn(answered, delta(5, "."), 14_000).parts[0]).toBe(answered.parts[0]);
  });

  it("end where a tool is asked or the run ends", () => {
    const asked: RunEvent = { seq: 3, type: "tool.started", data: { call_id: "c", name: "n", arguments: null } };
    for (const next of [asked, finished(3, "CANCELLED")]) {
      const state = at([started(1), 0], [thought(2, "Hm"), 1000], [next, 3000]);
      expect(state.parts[0]).toMatchObject({ kind: "thought", milliseconds: 2000 });
    }
  });

  it("go on from what the server had counted when the page was loaded", () => {
    const before = { ...START_OF_TURN, thoughtBefore: 5000 };
    const state = [started(1), thought(2, "Hm"), delta(3, "Yes"), thought(4, "Or"), delta(5, "no")].reduce(
      (now, event) => reduceTurn(now, event, 20_000),
      before,
    );
    expect(state.parts.map((part) => (part.kind === "thought" ? part.milliseconds : part.kind))).toEqual([
      5000,
      "text",
      0,
      "text",
    ]);
  });
});

describe("duplicates", () => {
  it("are passed over", () => {
    const doubled = WHOLE.flatMap((event) => [event, event]);
    expect(stateAfter(...doubled)).toEqual(stateAfter(...WHOLE));
  });

  it("of a stream that was read twice from its beginning change nothing", () => {
    const half = stateAfter(...WHOLE.slice(0, 3));
    expect(reduceTurnEvents(half, WHOLE)).toEqual(stateAfter(...WHOLE));
  });

  it("leave the very same state, so that nothing is drawn again", () => {
    const state = stateAfter(...WHOLE.slice(0, 3));
    expect(reduceTurnEvents(state, WHOLE.slice(0, 3))).toBe(state);
  });
});

describe("events out of order", () => {
  it("stop the text where one is missing, and ask for a reload", () => {
    const state = stateAfter(started(1), delta(2, "Hel"), delta(4, " you"), delta(3, "lo"));
    expect(state.needsReload).toBe(true);
    expect(state.lastSeq).toBe(2);
    expect(textOf(state)).toBe("Hel");
  });

  it("are repaired by the events after the last good one", () => {
    const broken = stateAfter(started(1), delta(2, "Hel"), delta(4, " you"));
    const repaired = reduceTurnEvents(resume(broken), WHOLE.slice(2));
    expect(repaired).toEqual(stateAfter(...WHOLE));
  });

  it("count as missing when their data is damaged", () => {
    const state = stateAfter(started(1), { seq: 2, type: "unreadable" }, delta(3, "lo"));
    expect(state).toMatchObject({ needsReload: true, lastSeq: 1, parts: [] });
  });

  it("that are gone for good add no text, but the end is still seen", () => {
    const pruned = [started(1), delta(2, "Hel"), completed(5, "Hello you"), finished(6)];
    const broken = stateAfter(...pruned);
    const state = reduceTurnEvents(giveUpMissing(broken), pruned);
    expect(state).toMatchObject({ isIncomplete: true, needsReload: false, outcome: "SUCCEEDED" });
    expect(textOf(state)).toBe("Hel");
    expect(state.message?.content).toBe("Hello you");
    expect(textOf(reduceTurnEvents(giveUpMissing(stateAfter(started(1))), [delta(3, "lo")]))).toBe("");
  });
});

describe("a resumed stream", () => {
  it("goes on where the other connection broke", () => {
    const before = stateAfter(started(1), delta(2, "Hel"));
    const state = reduceTurnEvents(
      before,
      WHOLE.filter((event) => event.seq > before.lastSeq),
    );
    expect(state).toEqual(stateAfter(...WHOLE));
  });

  it("after the end changes nothing", () => {
    const state = stateAfter(...WHOLE);
    expect(reduceTurnEvents(state, [delta(7, "more"), ...WHOLE])).toBe(state);
  });
});

describe("errors", () => {
  const error = {
    code: 503,
    status: "UNAVAILABLE",
    message: "The connection to the model broke.",
    details: [{ reason: "MODEL_CONNECTION_LOST", domain: "concerto", metadata: {} }],
  };

  it("keep what was said", () => {
    const state = stateAfter(
      started(1),
      delta(2, "Hel"),
      completed(3, "Hel"),
      { seq: 4, type: "error", data: { error } },
      finished(5, "FAILED"),
    );
    expect(state).toMatchObject({ outcome: "FAILED", error });
    expect(textOf(state)).toBe("Hel");
  });

  it("may come before anything was said", () => {
    const state = stateAfter(started(1), { seq: 2, type: "error", data: { error } }, finished(3, "FAILED"));
    expect(state).toMatchObject({ outcome: "FAILED", message: null, parts: [], error });
  });

  it("of a cancelled run are none", () => {
    expect(stateAfter(started(1), finished(2, "CANCELLED"))).toMatchObject({ outcome: "CANCELLED", error: null });
  });
});

describe("tools and usage", () => {
  it("stand where they happened", () => {
    const state = stateAfter(
      started(1),
      delta(2, "Let me look."),
      { seq: 3, type: "tool.started", data: { call_id: "c1", name: "search", arguments: { q: "x" } } },
      { seq: 4, type: "tool.started", data: { call_id: "c2", name: "ask", arguments: null } },
      { seq: 5, type: "tool.finished", data: { call_id: "c1", name: "search", output: "found", is_error: false } },
      { seq: 6, type: "tool.finished", data: { call_id: "c2", name: "ask", output: "no", is_error: true } },
      delta(7, "Here "),
      delta(8, "it is."),
      {
        seq: 9,
        type: "usage",
        data: {
          model: "m",
          prompt_tokens: 1,
          completion_tokens: 2,
          cached_tokens: 0,
          cost_micro_usd: 0,
          is_estimated: false,
        },
      },
    );
    expect(state.parts).toEqual([
      { kind: "text", text: "Let me look." },
      { kind: "tool", call: { id: "c1", name: "search", arguments: { q: "x" }, output: "found", isError: false } },
      { kind: "tool", call: { id: "c2", name: "ask", arguments: null, output: "no", isError: true } },
      { kind: "text", text: "Here it is." },
    ]);
    expect(state.usage?.completion_tokens).toBe(2);
  });

  it("show a result whose call was not seen", () => {
    const state = stateAfter(started(1), {
      seq: 2,
      type: "tool.finished",
      data: { call_id: "c", name: "search", output: "x", is_error: false },
    });
    expect(state.parts).toHaveLength(1);
  });
});

describe("toRunEvent", () => {
  it("reads the contract's events", () => {
    expect(toRunEvent({ id: "3", type: "message.delta", data: '{"text":"a"}' })).toEqual(delta(3, "a"));
  });

  it("knows what is none of the run's", () => {
    expect(toRunEvent({ id: null, type: "error", data: "{}" })).toBeNull();
    expect(toRunEvent({ id: "x", type: "message.delta", data: "{}" })).toBeNull();
  });

  it("marks what it cannot read or does not know", () => {
    expect(toRunEvent({ id: "3", type: "message.delta", data: '{"te' })).toEqual({ seq: 3, type: "unreadable" });
    expect(toRunEvent({ id: "3", type: "message.delta", data: "[1]" })).toEqual({ seq: 3, type: "unreadable" });
    expect(toRunEvent({ id: "3", type: "new.kind", data: "{}" })).toEqual({ seq: 3, type: "unknown" });
  });
});
