import createClient from "openapi-fetch";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ApiError } from "@/lib/api/errors";
import type { paths } from "@/lib/api/schema";
import { until } from "@/test/until";
import { conversationApi } from "../conversation-api";
import { TestServer } from "../testing/test-server";
import { ConversationController, type Place } from "./controller";
import type { Dependencies } from "./dependencies";
import type { ConversationItem } from "./items";

let server: TestServer;
let address: string;
const opened: ConversationController[] = [];
let told: Record<string, unknown[]> = {};

beforeEach(async () => {
  server = new TestServer();
  address = await server.start();
  told = {};
});

afterEach(() => {
  for (const controller of opened.splice(0)) controller.detach();
  server.stop();
});

const tell =
  (name: string) =>
  (...values: unknown[]) => {
    told[name] = [...(told[name] ?? []), values.length === 1 ? values[0] : values];
  };

function open(sessionId: string | null, place: Place | null = null): ConversationController {
  const send = async (path: string | Request, init?: RequestInit) => {
    try {
      return await fetch(path, init);
    } catch (error) {
      throw ApiError.network(error);
    }
  };
  const client = createClient<paths>({ baseUrl: address, fetch: send });
  const dependencies: Dependencies = {
    api: conversationApi(client, (path, init) => send(address + path, init)),
    announce: tell("announced"),
    onCreated: tell("created"),
    onAccepted: tell("accepted"),
    onReturned: tell("returned"),
    onBegun: tell("begun"),
    onAnswered: tell("answered"),
    onError: tell("failed"),
  };
  const controller = new ConversationController(sessionId, dependencies, place);
  opened.push(controller);
  controller.attach();
  return controller;
}

function words(item: ConversationItem, controller: ConversationController): string {
  if (item.kind === "user") return `you: ${item.message.content}`;
  if (item.kind === "pending") return `${item.status}: ${item.content}`;
  if (item.kind === "failure") return `failure: ${item.sentence}`;
  if (item.kind === "note") return item.text;
  const parts = item.kind === "answer" ? item.parts : (controller.live.getSnapshot()?.parts ?? []);
  return `${item.kind}: ${parts.map((part) => (part.kind === "tool" ? `[${part.call.name}]` : part.text)).join("")}`;
}

const shown = (controller: ConversationController) =>
  controller.getSnapshot().items.map((item) => words(item, controller));
const keysOf = (controller: ConversationController) => controller.getSnapshot().items.map((item) => item.key);
const untilShown = (controller: ConversationController, expected: string[]) =>
  until(() => expect(shown(controller)).toEqual(expected));
const ready = (controller: ConversationController) => until(() => expect(controller.getSnapshot().phase).toBe("ready"));
const idle = (controller: ConversationController) => until(() => expect(controller.getSnapshot().turn).toBe("idle"));
const lastRun = () => {
  const served = server.runs.at(-1);
  if (served === undefined) throw new Error("no run");
  return served;
};

function fill(count: number): void {
  for (let order = 1; order <= count; order += 1) {
    server.store({ role: order % 2 ? "user" : "assistant", content: `t${order}` });
  }
}

async function loaded(count: number): Promise<ConversationController> {
  fill(count);
  const controller = open("s1");
  await ready(controller);
  return controller;
}

describe("a new chat", () => {
  it("becomes a session with its first message, and its answer streams", async () => {
    const controller = open(null);
    expect(controller.getSnapshot().phase).toBe("new");
    expect(controller.send("Hello", {})).toBe(true);
    expect(shown(controller)).toEqual(["sending: Hello", "live: "]);
    const keys = keysOf(controller);
    await untilShown(controller, ["you: Hello", "live: "]);
    expect(told.created).toMatchObject([{ id: "s1" }]);
    expect(told.accepted).toEqual([["s1", "Hello"]]);
    server.send(lastRun(), "message.delta", { text: "Good " });
    server.send(lastRun(), "message.delta", { text: "day" });
    await untilShown(controller, ["you: Hello", "live: Good day"]);
    expect(controller.send("Again", {})).toBe(false);
    server.finish(lastRun(), "Good day");
    await untilShown(controller, ["you: Hello", "answer: Good day"]);
    await idle(controller);
    // Nothing on the page is replaced on the way.
    expect(keysOf(controller)).toEqual(keys);
    expect(told.begun).toEqual(["s1"]);
    expect(told.answered).toEqual(["s1"]);
  });

  it("keeps its page until the address names the session", async () => {
    const controller = open(null);
    controller.send("Hello", {});
    await untilShown(controller, ["you: Hello", "live: "]);
    expect([null, "s1", "s2"].map((id) => controller.belongsTo(id))).toEqual([true, true, false]);
    controller.settleAddress("s1");
    expect([null, "s1"].map((id) => controller.belongsTo(id))).toEqual([false, true]);
  });

  it("sends once, however often the network loses the answer", async () => {
    server.failures.push({ begins: "POST /sessions/s1/runs", answer: "cut" });
    const controller = open(null);
    controller.send("Hello", {});
    await untilShown(controller, ["you: Hello", "live: "]);
    expect(server.runs).toHaveLength(1);
  });

  it("keeps what could not be sent, and sends it when it is tried again", async () => {
    server.failures.push({ begins: "POST /sessions", answer: 400, reason: "INVALID_FIELD" });
    const controller = open(null);
    controller.send("Hello", {});
    await untilShown(controller, ["failed: Hello"]);
    expect(told.accepted).toBeUndefined();
    controller.retry();
    await untilShown(controller, ["you: Hello", "live: "]);
  });

  it("gives what could not be sent back", async () => {
    server.failures.push({ begins: "POST /sessions", answer: 400 });
    const controller = open(null);
    controller.send("Hello", {});
    await untilShown(controller, ["failed: Hello"]);
    controller.takeBack();
    expect(shown(controller)).toEqual([]);
    expect(told.returned).toEqual(["Hello"]);
  });

  it("that is left while it is being sent is sent all the same", async () => {
    const controller = open(null);
    controller.send("Hello", {});
    controller.detach();
    await until(() => expect(server.runs).toHaveLength(1));
    expect(server.asked.some((route) => route.endsWith("/events"))).toBe(false);
  });
});

describe("a turn", () => {
  it("goes on when the connection is lost, and says so", async () => {
    const controller = await loaded(2);
    controller.send("More", {});
    await untilShown(controller, ["you: t1", "answer: t2", "you: More", "live: "]);
    server.send(lastRun(), "message.delta", { text: "one " });
    await untilShown(controller, ["you: t1", "answer: t2", "you: More", "live: one "]);
    server.failures.push({ begins: "GET /runs/r1/events", answer: "cut" });
    server.cut();
    await until(() => expect(controller.getSnapshot().isReconnecting).toBe(true));
    server.send(lastRun(), "message.delta", { text: "two" });
    server.finish(lastRun(), "one two");
    await untilShown(controller, ["you: t1", "answer: t2", "you: More", "answer: one two"]);
    expect(controller.getSnapshot().isReconnecting).toBe(false);
  });

  it("that runs when the page is opened is followed from its beginning", async () => {
    const first = await loaded(2);
    first.send("More", {});
    await untilShown(first, ["you: t1", "answer: t2", "you: More", "live: "]);
    server.send(lastRun(), "message.delta", { text: "one " });
    first.detach();
    const second = open("s1");
    await untilShown(second, ["you: t1", "answer: t2", "you: More", "live: one "]);
    server.finish(lastRun(), "one two");
    await untilShown(second, ["you: t1", "answer: t2", "you: More", "answer: one two"]);
  });

  it("that runs when the page is opened is there at once, and grows with its events, the tools' among them", async () => {
    const first = await loaded(0);
    first.send("Go", {});
    await untilShown(first, ["you: Go", "live: "]);
    server.send(lastRun(), "tool.started", { call_id: "c", name: "search", arguments: {} });
    server.send(lastRun(), "message.delta", { text: "one " });
    server.send(lastRun(), "message.delta", { text: "two " });
    first.detach();
    server.failures.push({ begins: "GET /runs/r1/events", answer: "cut" });
    const second = open("s1");
    const seen: string[] = [];
    second.live.subscribe(() => seen.push(JSON.stringify(second.live.getSnapshot()?.parts)));
    await ready(second);
    expect(shown(second)).toEqual(["you: Go", "live: one two "]);
    server.send(lastRun(), "message.delta", { text: "three" });
    await untilShown(second, ["you: Go", "live: [search]one two three"]);
    // What was shown never becomes less.
    expect(seen.filter((parts) => !parts.includes("one two "))).toEqual([]);
  });

  it("is stopped, and what was said is kept", async () => {
    const controller = await loaded(0);
    controller.send("Go", {});
    await untilShown(controller, ["you: Go", "live: "]);
    server.send(lastRun(), "message.delta", { text: "one" });
    await controller.stop();
    await untilShown(controller, ["you: Go", "answer: one"]);
    expect(controller.getSnapshot().items.at(-1)).toMatchObject({ notes: { isPartial: true } });
  });

  it("is stopped even before the server has it", async () => {
    const controller = await loaded(0);
    controller.send("Go", {});
    void controller.stop();
    expect(controller.getSnapshot().turn).toBe("stopping");
    await untilShown(controller, ["you: Go", "failure: You stopped this answer."]);
  });

  it("that failed with nothing said says why, also after a reload, and is tried again", async () => {
    const controller = await loaded(0);
    server.onRun = (served) => {
      served.run.error_reason = "MODEL_TIMEOUT";
      server.send(served, "error", { error: { code: 504, status: "X", message: "Too slow.", details: [] } });
      server.finish(served, "", "FAILED");
    };
    controller.send("Go", {});
    await untilShown(controller, ["you: Go", "failure: Too slow."]);
    const again = open("s1");
    await untilShown(again, ["you: Go", "failure: The model did not answer in time."]);
    server.onRun = (served) => server.finish(served, "Now.");
    again.regenerate("m1", {});
    await untilShown(again, ["you: Go", "answer: Now."]);
  });

  it("with tools brings their messages", async () => {
    const controller = await loaded(0);
    server.onRun = (served) => {
      const { id: run_id, user_message_id } = served.run;
      server.send(served, "tool.started", { call_id: "c", name: "search", arguments: {} });
      const metadata = { run_id, tool_calls: [{ id: "c", name: "search", args: {} }] };
      server.store({ role: "assistant", content: "", parent_id: user_message_id, metadata });
      server.store({ role: "tool", content: "x", metadata: { run_id, tool_call_id: "c" } });
      const message = server.store({ role: "assistant", content: "Found.", metadata: { run_id } });
      served.run.answer_message_id = message.id;
      server.send(served, "message.completed", { message });
      served.isDone = true;
      server.send(served, "run.finished", { state: "SUCCEEDED" });
    };
    controller.send("Look", {});
    await untilShown(controller, ["you: Look", "answer: [search]Found."]);
  });

  it("whose events are gone is read from what is stored", async () => {
    const controller = await loaded(0);
    server.onRun = (served) => {
      server.send(served, "message.delta", { text: "a" });
      server.send(served, "message.delta", { text: "b" });
      server.finish(served, "ab");
      served.frames[1] = ": gone\n\n";
    };
    controller.send("Go", {});
    await untilShown(controller, ["you: Go", "answer: ab"]);
  });

  it("that another tab runs gives the text back and shows theirs", async () => {
    const controller = await loaded(0);
    const other = open("s1");
    await ready(other);
    other.send("Mine", {});
    await untilShown(other, ["you: Mine", "live: "]);
    const failure = { begins: "POST /sessions/s1/runs", answer: 409, reason: "RUN_IN_PROGRESS" };
    server.failures.push({ ...failure, metadata: { run_id: "r1" } });
    controller.send("Yours", {});
    await untilShown(controller, ["you: Mine", "live: "]);
    expect(told.returned).toEqual(["Yours"]);
  });
});

describe("versions", () => {
  it("come from answering again and from editing, and are switched", async () => {
    const controller = await loaded(2);
    const keys = keysOf(controller);
    server.onRun = (served) => server.finish(served, `answer of ${served.run.id}`);
    controller.regenerate("m1", {});
    expect(shown(controller)).toEqual(["you: t1", "live: "]);
    await untilShown(controller, ["you: t1", "answer: answer of r1"]);
    expect(controller.getSnapshot().items[1]).toMatchObject({ alternatives: { ids: ["m2", "m3"], index: 1 } });
    expect(keysOf(controller)).toEqual(keys);
    await idle(controller);
    controller.edit("m1", "other", {});
    expect(shown(controller)).toEqual(["sending: other", "live: "]);
    await untilShown(controller, ["you: other", "answer: answer of r2"]);
    await idle(controller);
    await controller.selectBranch("m1");
    expect(shown(controller)).toEqual(["you: t1", "answer: answer of r1"]);
    const again = open("s1");
    await untilShown(again, ["you: t1", "answer: answer of r1"]);
  });

  it("that cannot be switched go back", async () => {
    server.store({ role: "user", content: "a" });
    server.store({ role: "user", content: "b", parent_id: "" });
    const controller = open("s1");
    await untilShown(controller, ["you: b"]);
    server.failures.push({ begins: "POST /sessions/s1/branch", answer: 409, reason: "RUN_IN_PROGRESS" });
    await controller.selectBranch("m1");
    expect(shown(controller)).toEqual(["you: b"]);
    expect(told.failed).toHaveLength(1);
  });
});

describe("a long conversation", () => {
  it("loads backward to its beginning", async () => {
    const controller = await loaded(300);
    expect(shown(controller)).toHaveLength(50);
    while (controller.getSnapshot().hasEarlier) await controller.loadEarlier();
    expect(shown(controller)).toHaveLength(300);
    expect(shown(controller)[0]).toBe("you: t1");
  });

  it("opens at a message and goes to the end before it sends", async () => {
    fill(200);
    const controller = open("s1", { messageId: "m51", order: 51 });
    await ready(controller);
    expect(controller.getSnapshot()).toMatchObject({ target: { messageId: "m51" }, hasEarlier: true, hasLater: true });
    await controller.loadLater();
    expect(shown(controller).length).toBeGreaterThan(100);
    controller.send("End", {});
    await until(() => expect(shown(controller).at(-2)).toBe("you: End"));
    expect(shown(controller).at(-3)).toBe("answer: t200");
  });

  it("opens at a message of another branch by selecting it", async () => {
    server.store({ role: "user", content: "a" });
    server.store({ role: "user", content: "b", parent_id: "" });
    const controller = open("s1", { messageId: "m1", order: 1 });
    await untilShown(controller, ["you: a"]);
    expect(server.asked).toContain("POST /sessions/s1/branch");
  });

  it("says that earlier messages could not be loaded", async () => {
    const controller = await loaded(120);
    server.failures.push({ begins: "GET /sessions/s1/messages", answer: 503 });
    await controller.loadEarlier();
    expect(controller.getSnapshot().earlier).toBe("failed");
    await controller.loadEarlier();
    expect(controller.getSnapshot().earlier).toBe("idle");
  });
});

it("what other tabs say is heard", async () => {
  const controller = await loaded(2);
  const other = open("s1");
  await ready(other);
  other.send("More", {});
  await untilShown(other, ["you: t1", "answer: t2", "you: More", "live: "]);
  controller.onAnnouncement({ kind: "run-started", sessionId: "s1", runId: "r1" });
  await untilShown(controller, ["you: t1", "answer: t2", "you: More", "live: "]);
  server.finish(lastRun(), "Yes.");
  await untilShown(controller, ["you: t1", "answer: t2", "you: More", "answer: Yes."]);
});

it("a session that cannot be loaded says so, and loads when it is asked again", async () => {
  server.store({ role: "user", content: "a" });
  server.failures.push({ begins: "GET /runs", answer: 404, reason: "SESSION_NOT_FOUND" });
  const controller = open("s1");
  await until(() => expect(controller.getSnapshot().phase).toBe("failed"));
  expect(controller.getSnapshot().loadError).toMatchObject({ code: 404 });
  await controller.load();
  await untilShown(controller, ["you: a"]);
});
