import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { ApiError } from "@/lib/api/errors";
import { until } from "@/test/until";
import type { RunEvent } from "./run-events";
import { type ConnectionState, followRun, type RunReaderOptions, type Verdict } from "./run-reader";

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

type Answer = (after: number, response: ServerResponse) => void;

/** Serves one answer after the other over real HTTP; the last one again and again. */
async function serve(...answers: Answer[]): Promise<{ address: string; asked: number[]; cut: () => void }> {
  const asked: number[] = [];
  const server = createServer((request, response) => {
    const after = Number(request.headers["last-event-id"] ?? 0);
    asked.push(after);
    answers[Math.min(asked.length, answers.length) - 1]?.(after, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closers.push(() => {
    server.closeAllConnections();
    server.close();
  });
  const cut = () => server.closeAllConnections();
  return { address: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked, cut };
}

const frame = (seq: number, type = "message.delta", data: object = { text: `t${seq}` }) =>
  `id: ${seq}\nevent: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
const FINISHED = { state: "SUCCEEDED" };

/** Sends the events up to `last` that the reader does not have, then ends as it is told. */
const events =
  (last: number, end: "finish" | "close" | "hang"): Answer =>
  (after, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    for (let seq = after + 1; seq <= last; seq += 1) {
      const isLast = end === "finish" && seq === last;
      response.write(isLast ? frame(seq, "run.finished", FINISHED) : frame(seq));
    }
    if (end !== "hang") response.end();
  };
const refuse =
  (code: number, reason: string, headers: Record<string, string> = {}): Answer =>
  (_, response) => {
    const error = { code, status: "X", message: "No.", details: [{ reason, domain: "concerto", metadata: {} }] };
    response.writeHead(code, { "content-type": "application/json", ...headers });
    response.end(JSON.stringify({ error }));
  };

function follow(
  address: string,
  changes: Partial<RunReaderOptions> = {},
  verdict: (all: number[]) => Verdict = () => "continue",
) {
  const seqs: number[] = [];
  const states: ConnectionState[] = [];
  const stop = new AbortController();
  const end = followRun({
    open: async (afterSeq, signal) => {
      try {
        return await fetch(address, { headers: afterSeq > 0 ? { "last-event-id": String(afterSeq) } : {}, signal });
      } catch (error) {
        throw ApiError.network(error);
      }
    },
    afterSeq: () => seqs.at(-1) ?? 0,
    onEvents: (batch: RunEvent[]) => {
      seqs.push(...batch.map((event) => event.seq));
      return verdict(seqs);
    },
    onConnection: (state) => states.push(state),
    signal: stop.signal,
    firstPauseMs: 5,
    longestPauseMs: 20,
    ...changes,
  });
  return { seqs, states, stop, end };
}

describe("followRun", () => {
  it("reads a run to its end", async () => {
    const { address, asked } = await serve(events(5, "finish"));
    const reading = follow(address);
    expect(await reading.end).toBe("ended");
    expect(reading.seqs).toEqual([1, 2, 3, 4, 5]);
    expect(reading.states).toEqual(["connecting", "connected"]);
    expect(asked).toEqual([0]);
  });

  it("goes on behind the last event after each lost connection", async () => {
    const { address, asked, cut } = await serve(
      events(2, "close"),
      events(4, "hang"),
      refuse(503, "X"),
      events(7, "finish"),
    );
    const reading = follow(address, {}, (all) => {
      if (all.at(-1) === 4) cut();
      return "continue";
    });
    expect(await reading.end).toBe("ended");
    expect(reading.seqs).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect(asked).toEqual([0, 2, 4, 4]);
    expect(reading.states.filter((state) => state === "reconnecting")).toHaveLength(3);
    expect(reading.states.at(-1)).toBe("connected");
  });

  it("takes a stream's own failure for a lost connection", async () => {
    const broken: Answer = (_, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.end(
        `${frame(1)}event: error\ndata: {"error":{"code":503,"status":"UNAVAILABLE","message":"x","details":[]}}\n\n`,
      );
    };
    const { address, asked } = await serve(broken, events(3, "finish"));
    const reading = follow(address);
    expect(await reading.end).toBe("ended");
    expect(reading.seqs).toEqual([1, 2, 3]);
    expect(asked).toEqual([0, 1]);
  });

  it("asks again when its sign-in has ended, and takes that answer for the last", async () => {
    const ended: Answer = (_, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      const error = `{"error":{"code":401,"status":"UNAUTHENTICATED","message":"x","details":[]}}`;
      response.end(`${frame(1)}event: error\ndata: ${error}\n\n`);
    };
    const { address, asked } = await serve(ended, refuse(401, "SIGN_IN_ENDED"));
    await expect(follow(address).end).rejects.toMatchObject({ code: 401, reason: "SIGN_IN_ENDED" });
    expect(asked).toEqual([0, 1]);
  });

  it("ends when nothing follows", async () => {
    const { address } = await serve(events(2, "close"), (_, response) => response.writeHead(204).end());
    expect(await follow(address).end).toBe("ended");
  });

  it("comes back to a server that was away", async () => {
    const { address } = await serve(events(1, "finish"));
    const port = new URL(address).port;
    closers.splice(0).forEach((close) => {
      close();
    });
    const reading = follow(address);
    await until(() => expect(reading.states.at(-1)).toBe("reconnecting"));
    const server = createServer((_, response) => events(2, "finish")(0, response));
    await new Promise<void>((resolve) => server.listen(Number(port), "127.0.0.1", resolve));
    closers.push(() => server.close());
    expect(await reading.end).toBe("ended");
    expect(reading.seqs).toEqual([1, 2]);
  });

  it("says why it cannot go on", async () => {
    const { address, asked } = await serve(refuse(404, "RUN_NOT_FOUND"));
    await expect(follow(address).end).rejects.toMatchObject({ code: 404, reason: "RUN_NOT_FOUND" });
    expect(asked).toHaveLength(1);
  });

  it("leaves a connection that says nothing", async () => {
    const { address, asked } = await serve(events(2, "hang"), events(3, "finish"));
    const reading = follow(address, { silenceMs: 400 });
    expect(await reading.end).toBe("ended");
    expect(asked).toEqual([0, 2]);
  });

  it("stops when it is told", async () => {
    const { address } = await serve(events(2, "hang"));
    const reading = follow(address);
    await until(() => expect(reading.seqs).toEqual([1, 2]));
    reading.stop.abort();
    expect(await reading.end).toBe("aborted");
    expect(reading.seqs).toEqual([1, 2]);
  });

  it("leaves its connection when the network goes", async () => {
    const { address, asked } = await serve(events(2, "hang"), events(3, "finish"));
    const reading = follow(address);
    await until(() => expect(reading.seqs).toEqual([1, 2]));
    window.dispatchEvent(new Event("offline"));
    expect(await reading.end).toBe("ended");
    expect(asked).toEqual([0, 2]);
    expect(reading.states).toContain("reconnecting");
  });

  it("asks again at once when the network is back", async () => {
    const { address, asked } = await serve(events(1, "close"), events(2, "finish"));
    const reading = follow(address, { firstPauseMs: 60_000 });
    await until(() => expect(reading.states.at(-1)).toBe("reconnecting"));
    expect(asked).toHaveLength(1);
    window.dispatchEvent(new Event("online"));
    expect(await reading.end).toBe("ended");
  });

  it("connects again when its owner misses an event", async () => {
    const { address, asked } = await serve(events(4, "hang"), events(6, "finish"));
    const reading = follow(address, {}, (all) => (asked.length === 1 && all.length > 0 ? "reconnect" : "continue"));
    expect(await reading.end).toBe("ended");
    expect(reading.seqs).toEqual([1, 2, 3, 4, 5, 6]);
    expect(asked).toHaveLength(2);
  });
});
