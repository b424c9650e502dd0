/** One event of a stream of Server-Sent Events. */
export type SseEvent = {
  /** The event's own id; null when it carries none. */
  id: string | null;
  type: string;
  data: string;
};

/** Turns text that comes in pieces of any size into events. An event counts only once its blank line is there. */
export class SseParser {
  private rest = "";
  private mayStartWithLineFeed = false;
  private id: string | null = null;
  private type = "";
  private data: string[] = [];

  /** Takes the next piece and returns the events that it completes. */
  push(piece: string): SseEvent[] {
    let text = piece;
    if (this.mayStartWithLineFeed && text.length > 0) {
      // The last piece ended with CR; a LF that follows belongs to the same line end.
      if (text.startsWith("\n")) text = text.slice(1);
      this.mayStartWithLineFeed = false;
    }
    const events: SseEvent[] = [];
    // What was left over holds no line end, so only the new piece is searched for one.
    let lineStart = 0;
    const ends = /\r\n|\r|\n/g;
    for (let end = ends.exec(text); end !== null; end = ends.exec(text)) {
      const event = this.takeLine(this.rest + text.slice(lineStart, end.index));
      if (event !== null) events.push(event);
      this.rest = "";
      lineStart = ends.lastIndex;
      if (end[0] === "\r" && lineStart === text.length) this.mayStartWithLineFeed = true;
    }
    this.rest += text.slice(lineStart);
    return events;
  }

  private takeLine(line: string): SseEvent | null {
    if (line === "") return this.dispatch();
    if (line.startsWith(":")) return null;
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (field === "data") this.data.push(value);
    else if (field === "event") this.type = value;
    else if (field === "id" && !value.includes("\0")) this.id = value;
    return null;
  }

  private dispatch(): SseEvent | null {
    const event = { id: this.id, type: this.type || "message", data: this.data.join("\n") };
    const isEmpty = this.data.length === 0;
    this.id = null;
    this.type = "";
    this.data = [];
    return isEmpty ? null : event;
  }
}

/**
 * Yields the events of a response's body, those of one network chunk together (an empty list for a chunk that
 * completes none, which still shows that the connection lives). What stands after the last blank line is dropped.
 */
export async function* readSse(body: ReadableStream<Uint8Array>): AsyncGenerator<SseEvent[], void, undefined> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const parser = new SseParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      // A character may be cut by the end of a chunk; the decoder keeps its first bytes.
      yield parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    // Whoever stops reading wants the connection closed.
    await reader.cancel().catch(() => undefined);
  }
}
