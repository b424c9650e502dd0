import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { AnswerUnderWay, Message, Run, Session } from "@/lib/api/types";
import { messageOf, runOf } from "./stored";

/** A turn at the server; the test says what its stream sends and when. */
export type ServedRun = { run: Run; frames: string[]; isDone: boolean; listeners: Set<() => void> };

type Failure = { begins: string; answer: number | "cut"; reason?: string; metadata?: Record<string, string> };

/** The few routes that a conversation uses, over real HTTP and kept in memory. */
export class TestServer {
  readonly messages: Message[] = [];
  readonly runs: ServedRun[] = [];
  readonly asked: string[] = [];
  readonly session: Session = {
    id: "s1",
    user_id: "u1",
    name: "",
    is_archived: false,
    message_count: 0,
    created_at: null,
    updated_at: null,
  };
  /** What the next request whose "METHOD /path" begins so is answered: a status, or nothing at all. */
  readonly failures: Failure[] = [];
  /** Called when a run has been created, with its user's message stored. */
  onRun: (served: ServedRun) => void = () => undefined;
  private readonly server: Server;

  constructor() {
    this.server = createServer((request, response) => void this.answer(request, response));
  }

  async start(): Promise<string> {
    await new Promise<void>((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  stop(): void {
    this.server.closeAllConnections();
    this.server.close();
  }

  /** Ends every open connection, as a killed gateway does. */
  cut(): void {
    this.server.closeAllConnections();
  }

  /** Stores a message behind the others; it becomes the active branch's end. */
  store(fields: Partial<Message>): Message {
    const order = this.messages.length + 1;
    const parent = this.messages.findLast((message) => message.is_active)?.id ?? "";
    const message = messageOf(order, { parent_id: parent, ...fields });
    this.messages.push(message);
    this.activate(message.id);
    return message;
  }

  /** Sends the next event of a run. */
  send(served: ServedRun, type: string, data: object): void {
    served.frames.push(`id: ${served.frames.length + 1}\nevent: ${type}\ndata: ${JSON.stringify(data)}\n\n`);
    for (const listener of served.listeners) listener();
  }

  /** Stores the answer, if there is one, and ends the run. */
  finish(served: ServedRun, content: string, state: Run["state"] = "SUCCEEDED"): void {
    const { run } = served;
    const metadata = { run_id: run.id, ...(state !== "SUCCEEDED" && { partial: true, error_reason: state }) };
    if (content !== "") {
      const message = this.store({ role: "assistant", content, metadata, parent_id: run.user_message_id });
      run.answer_message_id = message.id;
      this.send(served, "message.completed", { message });
    }
    run.state = state;
    served.isDone = true;
    this.send(served, "run.finished", { state });
  }

  private activate(leafId: string): void {
    const active = new Set<string>();
    for (let id = leafId; id !== ""; id = this.messages.find((each) => each.id === id)?.parent_id ?? "") active.add(id);
    for (const [place, message] of this.messages.entries()) {
      this.messages[place] = { ...message, is_active: active.has(message.id) };
    }
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const address = new URL(request.url ?? "/", "http://localhost");
    const route = `${request.method} ${address.pathname}`;
    this.asked.push(route);
    const body = await bodyOf(request);
    const place = this.failures.findIndex((each) => route.startsWith(each.begins));
    const [failure] = place < 0 ? [] : this.failures.splice(place, 1);
    if (failure?.answer === "cut") {
      response.destroy();
      return;
    }
    if (failure !== undefined) {
      const { answer: code, reason = "X", metadata = {} } = failure;
      const error = { code, status: "X", message: "No.", details: [{ reason, domain: "concerto", metadata }] };
      reply(response, Number(code), { error });
      return;
    }
    const [, first, id = "", last] = address.pathname.split("/");
    if (route === "POST /sessions") reply(response, 201, this.session);
    else if (route === "GET /runs") {
      reply(response, 200, { runs: this.runs.slice(-1).map((served) => served.run), next_page_token: "" });
    } else if (first === "sessions" && last === undefined) reply(response, 200, this.session);
    else if (last === "messages") reply(response, 200, this.page(address.searchParams));
    else if (last === "branch") this.selectBranch(String(body.message_id), response);
    else if (first === "sessions" && last === "runs") this.createRun(body, response);
    else this.serveRun(id, last ?? "", request, response);
  }

  private page(query: URLSearchParams): object {
    const numberOf = (name: string) => Number(query.get(name) ?? 0);
    const size = numberOf("page_size") || 50;
    const before = Math.min(numberOf("before_order") || 1e9, numberOf("page_token") || 1e9);
    const found = this.messages.filter((each) => each.order > numberOf("after_order") && each.order < before);
    const page = query.get("from_end") === "true" ? found.slice(-size) : found.slice(0, size);
    const token = found.length > page.length ? String(page[0]?.order) : "";
    const isAsked = query.get("include_answer_under_way") === "true";
    return { messages: page, next_page_token: token, answer_under_way: isAsked ? this.underWay() : null };
  }

  private underWay(): AnswerUnderWay | null {
    const served = this.runs.findLast((each) => !each.isDone);
    if (served === undefined) return null;
    const { id: run_id, user_message_id, model, agent } = served.run;
    const of = (event: string) =>
      served.frames
        .filter((frame) => frame.includes(`event: ${event}`))
        .map((frame) => /"text":"(.*)"/.exec(frame)?.[1] ?? "")
        .join("");
    return {
      run_id,
      state: "RUNNING",
      user_message_id,
      text: of("message.delta"),
      last_seq: served.frames.length,
      model,
      agent,
      reasoning: of("reasoning.delta"),
      reasoning_milliseconds: 0,
    };
  }

  private selectBranch(messageId: string, response: ServerResponse): void {
    let leaf = messageId;
    let next: Message | undefined;
    do {
      next = this.messages.findLast((each) => each.parent_id === leaf);
      leaf = next?.id ?? leaf;
    } while (next !== undefined);
    this.activate(leaf);
    reply(response, 200, this.session);
  }

  private createRun(body: Record<string, unknown>, response: ServerResponse): void {
    const known = this.runs.find((served) => served.run.request_id === body.request_id);
    if (known !== undefined) {
      reply(response, 201, known.run);
      return;
    }
    const edited = this.messages.find((each) => each.id === body.edit_message_id);
    let asked = this.messages.find((each) => each.id === body.regenerate_message_id);
    if (asked === undefined) {
      const parent = edited === undefined ? {} : { parent_id: edited.parent_id };
      asked = this.store({ role: "user", content: String(body.content), ...parent });
    } else this.activate(asked.id);
    const fields = { request_id: String(body.request_id), user_message_id: asked.id };
    const run = runOf(`r${this.runs.length + 1}`, "RUNNING", fields);
    const served: ServedRun = { run, frames: [], isDone: false, listeners: new Set() };
    this.runs.push(served);
    this.send(served, "run.started", { run_id: run.id, session_id: "s1", user_message: asked, model: "m", agent: "a" });
    reply(response, 201, run);
    this.onRun(served);
  }

  private serveRun(runId: string, what: string, request: IncomingMessage, response: ServerResponse): void {
    const served = this.runs.find((each) => each.run.id === runId);
    if (served === undefined) reply(response, 404, {});
    else if (what === "cancel") {
      reply(response, 200, served.run);
      const said = served.frames.flatMap((frame) => /"text":"([^"]*)"/.exec(frame)?.[1] ?? []);
      this.finish(served, said.join(""), "CANCELLED");
    } else this.stream(served, Number(request.headers["last-event-id"] ?? 0), response);
  }

  private stream(served: ServedRun, after: number, response: ServerResponse): void {
    let sent = after;
    if (served.isDone && sent >= served.frames.length) {
      response.writeHead(204).end();
      return;
    }
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.flushHeaders();
    const push = () => {
      for (; sent < served.frames.length; sent += 1) response.write(served.frames[sent]);
      if (served.isDone) response.end();
    };
    served.listeners.add(push);
    response.on("close", () => served.listeners.delete(push));
    push();
  }
}

function reply(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { "content-type": "application/json", "x-request-id": "req-1" });
  response.end(JSON.stringify(body));
}

async function bodyOf(request: IncomingMessage): Promise<Record<string, unknown>> {
  let text = "";
  for await (const chunk of request) text += chunk;
  return text === "" ? {} : (JSON.parse(text) as Record<string, unknown>);
}
