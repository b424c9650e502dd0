import { ApiError, errorOf } from "@/lib/api/errors";
import { parseObject, type RunEvent, toRunEvent } from "./run-events";
import { readSse, type SseEvent } from "./sse";

export type ConnectionState = "connecting" | "connected" | "reconnecting";

/** What the reader is to do after a batch of events: go on, connect again at `afterSeq()`, or leave. */
export type Verdict = "continue" | "reconnect" | "stop";

export type RunReaderOptions = {
  /** Opens the stream of events after a seq; throws ApiError when the server cannot be reached. */
  open: (afterSeq: number, signal: AbortSignal) => Promise<Response>;
  /** The last seq that the reader's owner has. */
  afterSeq: () => number;
  /** Takes in events as they come, those of one network chunk together. */
  onEvents: (events: RunEvent[]) => Verdict;
  onConnection: (state: ConnectionState) => void;
  signal: AbortSignal;
  /** Pauses before tries, for tests. */
  firstPauseMs?: number;
  longestPauseMs?: number;
  /** How long a connection may be silent; the server says something every 15 seconds. */
  silenceMs?: number;
};

/**
 * Follows a run until its events have ended, over as many connections as that takes. Each begins behind the last
 * event that arrived. Returns "ended" when nothing follows any more, "aborted" when the signal fired or the owner
 * said "stop". Throws the ApiError of a refusal that trying again cannot fix.
 */
export async function followRun(options: RunReaderOptions): Promise<"ended" | "aborted"> {
  const { signal, onConnection } = options;
  const firstPause = options.firstPauseMs ?? 300;
  const longestPause = options.longestPauseMs ?? 5000;
  let pause = firstPause;
  onConnection("connecting");
  while (!signal.aborted) {
    const seqBefore = options.afterSeq();
    const end = await readOnce(options).catch((error: unknown) => {
      if (signal.aborted) return "aborted" as const;
      if (!isWorthRetrying(error)) throw error;
      return error;
    });
    if (signal.aborted) return "aborted";
    if (end === "ended" || end === "aborted") return end;
    onConnection("reconnecting");
    // A connection that brought something was a good one; only failures in a row make the pauses longer.
    if (options.afterSeq() > seqBefore) pause = firstPause;
    const asked = end instanceof ApiError && end.retryAfterSeconds !== null ? end.retryAfterSeconds * 1000 : 0;
    // Tabs that lost the same server do not all come back at the same moment.
    await pauseOrWake(Math.max(Math.min(asked, 30_000), pause * (0.75 + Math.random() / 2)), signal);
    pause = Math.min(pause * 2, longestPause);
  }
  return "aborted";
}

type EndOfConnection = "ended" | "aborted" | "lost";

async function readOnce(options: RunReaderOptions): Promise<EndOfConnection> {
  const connection = new AbortController();
  const abort = () => connection.abort();
  options.signal.addEventListener("abort", abort, { once: true });
  const watch = new Watch(options.silenceMs ?? 40_000, abort);
  try {
    const response = await options.open(options.afterSeq(), connection.signal);
    if (response.status === 204) return "ended";
    if (!response.ok || response.body === null) throw await errorOf(response);
    options.onConnection("connected");
    for await (const batch of readSse(response.body)) {
      watch.heard();
      const verdict = takeBatch(batch, options);
      if (verdict !== "continue") return verdict;
      const broken = batch.find((event) => event.type === "error" && event.id === null);
      if (broken !== undefined) {
        const failure = await streamFailure(broken.data);
        // The sign-in has ended while the stream was open: the next request finds out, and says so to the whole app.
        if (failure.code === 401) return "lost";
        throw failure;
      }
    }
    return "lost";
  } catch (error) {
    // Ended by the watch: the connection was dead, whatever the browser calls it.
    if (connection.signal.aborted && !options.signal.aborted) return "lost";
    throw error instanceof ApiError ? error : ApiError.network(error);
  } finally {
    watch.end();
    options.signal.removeEventListener("abort", abort);
    connection.abort();
  }
}

function takeBatch(batch: SseEvent[], options: RunReaderOptions): "continue" | EndOfConnection {
  const events = batch.map(toRunEvent).filter((event) => event !== null);
  if (events.length === 0) return "continue";
  const verdict = options.onEvents(events);
  if (verdict === "stop") return "aborted";
  if (verdict === "reconnect") return "lost";
  return events.some((event) => event.type === "run.finished") ? "ended" : "continue";
}

/** The stream itself broke: the gateway lost the service behind it, or ends. The run goes on. */
function streamFailure(data: string): Promise<ApiError> {
  const body = parseObject(data);
  const error = body?.error as { code?: unknown } | undefined;
  const code = typeof error?.code === "number" && error.code >= 400 && error.code < 600 ? error.code : 503;
  return errorOf(new Response(null, { status: code }), body ?? {});
}

function isWorthRetrying(error: unknown): boolean {
  if (!(error instanceof ApiError)) return true;
  return error.isNetwork || error.code >= 500 || error.code === 429 || error.code === 408 || error.code === 499;
}

/** Ends a connection that has been silent for too long, or that the network has changed under. */
class Watch {
  private timer: ReturnType<typeof setTimeout> | undefined;
  private heardAt = Date.now();

  constructor(
    private readonly silenceMs: number,
    private readonly abort: () => void,
  ) {
    this.heard();
    // Offline, a connection may hang without a word; to a gateway on this very machine another one is there at once.
    globalThis.addEventListener?.("offline", this.abort);
    globalThis.addEventListener?.("online", this.abort);
    globalThis.document?.addEventListener("visibilitychange", this.onVisibility);
  }

  /** Something came: the connection lives. */
  heard(): void {
    this.heardAt = Date.now();
    if (this.timer === undefined) this.arm(this.silenceMs);
  }

  end(): void {
    clearTimeout(this.timer);
    globalThis.removeEventListener?.("offline", this.abort);
    globalThis.removeEventListener?.("online", this.abort);
    globalThis.document?.removeEventListener("visibilitychange", this.onVisibility);
  }

  // One timer that looks at the clock, instead of a new one for each chunk.
  private arm(delayMs: number): void {
    this.timer = setTimeout(() => {
      const left = this.heardAt + this.silenceMs - Date.now();
      if (left <= 0) this.abort();
      else this.arm(left);
    }, delayMs);
  }

  // Timers of a sleeping computer stand still; its connections are dead when it wakes.
  private readonly onVisibility = (): void => {
    if (!document.hidden && Date.now() - this.heardAt > this.silenceMs / 2) this.abort();
  };
}

/** Waits, but no longer than until the network is back or the person looks at the page. */
function pauseOrWake(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const wake = () => {
      clearTimeout(timer);
      globalThis.removeEventListener?.("online", wake);
      globalThis.document?.removeEventListener("visibilitychange", onVisibility);
      signal.removeEventListener("abort", wake);
      resolve();
    };
    const onVisibility = () => {
      if (!document.hidden) wake();
    };
    const timer = setTimeout(wake, milliseconds);
    globalThis.addEventListener?.("online", wake);
    globalThis.document?.addEventListener("visibilitychange", onVisibility);
    signal.addEventListener("abort", wake, { once: true });
  });
}
