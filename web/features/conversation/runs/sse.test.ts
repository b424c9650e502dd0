import { describe, expect, it } from "vitest";
import { readSse, type SseEvent, SseParser } from "./sse";

function parse(...pieces: string[]): SseEvent[] {
  const parser = new SseParser();
  return pieces.flatMap((piece) => parser.push(piece));
}

const TEXT =
  'id: 1\nevent: run.started\ndata: {"a":1}\n\n: keep-alive\n\nid: 2\nevent: message.delta\ndata: {"text":"Grüße 👋"}\n\n';
const EVENTS = [
  { id: "1", type: "run.started", data: '{"a":1}' },
  { id: "2", type: "message.delta", data: '{"text":"Grüße 👋"}' },
];

describe("SseParser", () => {
  it("reads events and passes over comments", () => {
    expect(parse(TEXT)).toEqual(EVENTS);
  });

  it("reads the same wherever the text is cut", () => {
    for (const text of [TEXT, TEXT.replaceAll("\n", "\r\n"), TEXT.replaceAll("\n", "\r")]) {
      expect(parse(...text)).toEqual(EVENTS);
      for (let cut = 0; cut <= text.length; cut += 1) {
        expect(parse(text.slice(0, cut), text.slice(cut))).toEqual(EVENTS);
      }
    }
  });

  it("takes a CR and LF in two pieces as one line end, also with an empty piece between", () => {
    expect(parse("data: a\r", "", "\ndata: b\r", "\n\r", "\n")).toEqual([{ id: null, type: "message", data: "a\nb" }]);
  });

  it("joins the lines of data and keeps what stands in them", () => {
    expect(parse("data: a: b\ndata:c\ndata\ndata:  d\n\n")).toEqual([
      { id: null, type: "message", data: "a: b\nc\n\n d" },
    ]);
  });

  it("gives an event without an id none, whatever the one before had", () => {
    expect(parse("id: 7\ndata: a\n\nevent: error\ndata: b\n\n").map((event) => event.id)).toEqual(["7", null]);
  });

  it("drops an event that has no blank line yet, and one without data", () => {
    expect(parse("event: x\n\nid: 1\ndata: half")).toEqual([]);
  });

  it("ignores fields it does not know and an id with a NUL", () => {
    expect(parse("retry: 5\nfoo\nid: a\0b\ndata: x\n\n")).toEqual([{ id: null, type: "message", data: "x" }]);
  });
});

describe("readSse", () => {
  it("puts together characters and events that chunks cut", async () => {
    const bytes = new TextEncoder().encode(TEXT);
    for (const size of [1, 2, 3, 5, bytes.length]) {
      const body = new ReadableStream<Uint8Array>({
        start(controller) {
          for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
          controller.close();
        },
      });
      const events: SseEvent[] = [];
      for await (const batch of readSse(body)) events.push(...batch);
      expect(events).toEqual(EVENTS);
    }
  });

  it("closes the connection when its reader leaves", async () => {
    let isCancelled = false;
    const body = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(new TextEncoder().encode("data: x\n\n")),
      cancel: () => {
        isCancelled = true;
      },
    });
    for await (const batch of readSse(body)) if (batch.length > 0) break;
    expect(isCancelled).toBe(true);
  });
});
