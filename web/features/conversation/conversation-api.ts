import { api, authorizedFetch, unwrap } from "@/lib/api/client";
import type { components, operations } from "@/lib/api/schema";
import type { AnswerUnderWay, Message, Run, Session } from "@/lib/api/types";

type MessageQuery = NonNullable<operations["ListMessages"]["parameters"]["query"]>;
export type NewRun = components["schemas"]["Turn"];

/** The calls that a conversation makes. All throw ApiError. */
export type ConversationApi = {
  session(sessionId: string, signal?: AbortSignal): Promise<Session>;
  createSession(requestId: string): Promise<Session>;
  messages(
    sessionId: string,
    query: MessageQuery,
    signal?: AbortSignal,
  ): Promise<{ messages: Message[]; next_page_token: string; answer_under_way: AnswerUnderWay | null }>;
  newestRun(sessionId: string, signal?: AbortSignal): Promise<Run | null>;
  createRun(sessionId: string, run: NewRun): Promise<Run>;
  cancelRun(runId: string): Promise<Run>;
  selectBranch(sessionId: string, messageId: string): Promise<Session>;
  /** Opens a run's stream of events behind a seq. The answer may be any; only the missing of one throws. */
  openEvents(runId: string, afterSeq: number, signal: AbortSignal): Promise<Response>;
};

/** Returns the calls over a client and a fetch; by default those of the signed-in person. */
export function conversationApi(
  client: typeof api = api,
  fetcher: typeof authorizedFetch = authorizedFetch,
): ConversationApi {
  return {
    session: (sessionId, signal) =>
      unwrap(client.GET("/sessions/{session_id}", { params: { path: { session_id: sessionId } }, signal })),
    createSession: (requestId) => unwrap(client.POST("/sessions", { body: { request_id: requestId } })),
    messages: (sessionId, query, signal) =>
      unwrap(
        client.GET("/sessions/{session_id}/messages", { params: { path: { session_id: sessionId }, query }, signal }),
      ),
    newestRun: async (sessionId, signal) => {
      const page = await unwrap(
        client.GET("/runs", { params: { query: { session_id: sessionId, page_size: 1 } }, signal }),
      );
      return page.runs[0] ?? null;
    },
    createRun: (sessionId, run) =>
      unwrap(client.POST("/sessions/{session_id}/runs", { params: { path: { session_id: sessionId } }, body: run })),
    cancelRun: (runId) =>
      unwrap(client.POST("/runs/{run_id}/cancel", { params: { path: { run_id: runId } }, body: {} })),
    selectBranch: (sessionId, messageId) =>
      unwrap(
        client.POST("/sessions/{session_id}/branch", {
          params: { path: { session_id: sessionId } },
          body: { message_id: messageId },
        }),
      ),
    openEvents: (runId, afterSeq, signal) =>
      fetcher(`/runs/${encodeURIComponent(runId)}/events`, {
        headers: { Accept: "text/event-stream", ...(afterSeq > 0 && { "Last-Event-ID": String(afterSeq) }) },
        cache: "no-store",
        signal,
      }),
  };
}
