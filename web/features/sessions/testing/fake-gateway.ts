/** For tests: sessions in memory behind `fetch`, answered in the gateway's shapes. */
import type { Session } from "@/lib/api/types";
import { compareSessions, foldName } from "../data/cache";

/** A session of the tests; the higher the minute, the newer. */
export function makeSession(minute: number, fields: Partial<Session> = {}): Session {
  const number = String(minute).padStart(12, "0");
  const time = `2026-11-20T10:${String(minute % 60).padStart(2, "0")}:00.000001Z`;
  return {
    id: `00000000-0000-4000-8000-${number}`,
    user_id: "00000000-0000-4000-8000-00000000000a",
    name: `Chat ${minute}`,
    is_archived: false,
    message_count: 2,
    created_at: time,
    updated_at: time,
    ...fields,
  };
}

export class FakeGateway {
  sessions: Session[];
  /** Of each request: method and address. */
  readonly requests: string[] = [];
  /** Answers the next request that is no GET with this status instead. */
  refuse: number | null = null;
  /** While set, writes wait for it. */
  gate: Promise<void> | null = null;
  /** While set, reads wait for it. */
  readGate: Promise<void> | null = null;
  pageSize = 50;
  /** Answers what is not about sessions. */
  other: (request: Request) => Promise<Response> | Response = () => new Response(null, { status: 404 });

  constructor(sessions: Session[]) {
    this.sessions = sessions;
  }

  readonly fetch = async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const request = new Request(
      input instanceof Request ? input : new URL(String(input), window.location.origin),
      init,
    );
    const url = new URL(request.url);
    this.requests.push(`${request.method} ${url.pathname}${url.search}`);
    if (!url.pathname.startsWith("/sessions")) return this.other(request);
    const id = url.pathname.split("/")[2];
    if (request.method !== "GET") {
      if (this.gate) await this.gate;
      if (this.refuse) {
        const code = this.refuse;
        this.refuse = null;
        return Response.json(
          { error: { code, status: "UNAVAILABLE", message: "Not now.", details: [] } },
          { status: code, headers: { "X-Request-Id": "request-1" } },
        );
      }
    }
    if (request.method === "GET" && this.readGate) await this.readGate;
    if (!id) return Response.json(this.page(url.searchParams));
    const found = this.sessions.find((session) => session.id === id);
    if (!found) {
      return Response.json(
        { error: { code: 404, status: "NOT_FOUND", message: `Session ${id} was not found.`, details: [] } },
        { status: 404 },
      );
    }
    if (request.method === "DELETE") {
      this.sessions = this.sessions.filter((session) => session !== found);
      return new Response(null, { status: 204 });
    }
    if (request.method === "PATCH") {
      const changes = (await request.json()) as Partial<Session>;
      const changed = { ...found, ...changes, updated_at: new Date().toISOString() };
      this.sessions = this.sessions.map((session) => (session === found ? changed : session));
      return Response.json(changed);
    }
    return Response.json(found);
  };

  private page(query: URLSearchParams): { sessions: Session[]; next_page_token: string } {
    const wanted = this.sessions
      .filter((session) => session.is_archived === (query.get("is_archived") === "true"))
      .filter((session) => foldName(session.name).includes(foldName(query.get("query") ?? "")))
      .sort(compareSessions);
    const start = Number(query.get("page_token") ?? 0);
    const end = start + this.pageSize;
    return { sessions: wanted.slice(start, end), next_page_token: end < wanted.length ? String(end) : "" };
  }
}
