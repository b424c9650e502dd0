import { ApiError } from "@/lib/api/errors";
import type { AnswerUnderWay, Run } from "@/lib/api/types";
import type { NewRun } from "../conversation-api";
import { failureSentence } from "../runs/failure-sentence";
import { LiveStore, LiveTurn } from "../runs/live-turn";
import { untilAnswered, withRetries } from "../runs/retrying";
import type { TurnState } from "../runs/run-reducer";
import { sentences } from "../sentences";
import type { Submission, TurnPhase } from "./conversation-state";
import type { TurnHost } from "./dependencies";
import type { ConversationItem, FailureItem } from "./items";
import { loadLater } from "./loading";
import { withLeaf, withStored } from "./message-window";

/** The turns of a conversation: what is being sent, the answer in the making, why there is none. One at a time. */
export class Turns {
  readonly live = new LiveStore();
  isReconnecting = false;
  /** Why the answer in the making can be followed no longer. */
  followError: unknown = null;
  private submission: Submission | null = null;
  private turn: LiveTurn | null = null;
  private turnKey = "";
  private failure: FailureItem | null = null;
  private isStopping = false;

  constructor(private readonly host: TurnHost) {}

  get isBusy(): boolean {
    return this.turn !== null || this.submission?.status === "sending";
  }

  get phase(): TurnPhase {
    if (!this.isBusy) return "idle";
    if (this.isStopping) return "stopping";
    return this.turn === null ? "starting" : "running";
  }

  /** Whether something is on its way to the server. */
  get isSending(): boolean {
    return this.turn === null && this.submission?.status === "sending";
  }

  /** Begins a turn. Returns false while there is one. */
  begin(request: Pick<Submission, "kind" | "content" | "choice" | "userMessageId">): boolean {
    const { host } = this;
    if (this.isBusy || !host.isAttached()) return false;
    const submission: Submission = {
      ...request,
      requestId: crypto.randomUUID(),
      sessionRequestId: crypto.randomUUID(),
      leafBefore: host.window.leafId,
      status: "sending",
      error: null,
    };
    this.submission = submission;
    if (request.userMessageId !== null) {
      const edited = request.kind === "edit" ? host.window.byId.get(request.userMessageId) : undefined;
      host.window = withLeaf(host.window, edited === undefined ? request.userMessageId : edited.parent_id || null);
    }
    void this.submit(submission);
    return true;
  }

  /** Tries again to send what could not be sent. */
  retry(): void {
    if (this.submission?.status === "failed") void this.submit(this.submission);
  }

  /** Gives what could not be sent back to the person. */
  takeBack(): void {
    const { submission, host } = this;
    if (submission?.status !== "failed") return;
    this.submission = null;
    host.window = withLeaf(host.window, submission.leafBefore);
    host.publish();
    if (submission.content !== "") host.dependencies.onReturned(submission.content);
  }

  /** Ends the answer; what was said is kept. */
  async stop(): Promise<void> {
    if (!this.isBusy || this.isStopping) return;
    this.isStopping = true;
    this.host.publish();
    // One that is still being sent is ended as soon as it has begun.
    if (this.turn !== null) await this.cancel(this.turn);
  }

  /** Takes in what the session's newest run says: follows it behind what it has said, or shows why it has no answer. */
  async showNewest(run: Run, underWay: AnswerUnderWay | null): Promise<void> {
    const { host } = this;
    if (run.state === "RUNNING" || run.state === "QUEUED") {
      if (run.user_message_id !== "" && host.window.byId.has(run.user_message_id)) {
        host.window = withLeaf(host.window, run.user_message_id);
      }
      const key = run.user_message_id === "" ? `run:${run.id}` : host.keyAfter(run.user_message_id);
      this.follow(run.id, key, underWay?.run_id === run.id ? underWay : null);
      return;
    }
    const { answer_message_id: answerId, user_message_id: askedId } = run;
    // The run may have ended between the two requests.
    if (answerId !== "" && !host.window.hasLater && !host.window.byId.has(answerId)) {
      host.window = await loadLater(host.dependencies.api, run.session_id, host.window, host.signal(), true);
    }
    if (answerId === "" && run.state !== "SUCCEEDED" && askedId !== "" && host.window.leafId === askedId) {
      this.failure = {
        ...failureOf(run.id, failureSentence(run.error_reason, run.state), askedId),
        isCancelledByUser: run.state === "CANCELLED",
      };
    }
  }

  /** Forgets why the last answer is missing. */
  forgetFailure(): void {
    this.failure = null;
    this.followError = null;
  }

  /** Stops following; what is being sent is still sent. */
  detach(): void {
    this.turn?.stop();
    if (this.turn !== null) this.submission = null;
    this.turn = null;
    this.isStopping = false;
    this.isReconnecting = false;
    this.live.clear();
  }

  /** What stands behind the stored messages. */
  items(): ConversationItem[] {
    const { submission } = this;
    const items: ConversationItem[] = [];
    if (submission !== null && submission.kind !== "regenerate") {
      const { content, status, error } = submission;
      const key = this.host.keyAfter(this.host.window.leafId ?? "");
      items.push({ kind: "pending", key, content, status, error });
    }
    if (this.isBusy) items.push({ kind: "live", key: this.turnKey });
    else if (submission?.kind === "regenerate") {
      const { error } = submission;
      const sentence = error instanceof Error ? error.message : failureSentence("");
      const requestId = error instanceof ApiError ? error.requestId : null;
      items.push({ ...failureOf(submission.requestId, sentence, null), requestId });
    } else if (submission === null && this.failure !== null) items.push(this.failure);
    return items;
  }

  private async submit(submission: Submission): Promise<void> {
    const { host } = this;
    const { api, announce, onAccepted, onCreated } = host.dependencies;
    submission.status = "sending";
    submission.error = null;
    const { userMessageId } = submission;
    const isNew = submission.kind !== "regenerate" || userMessageId === null;
    this.turnKey = isNew ? `answer:${submission.requestId}` : host.keyAfter(userMessageId);
    this.isStopping = false;
    this.forgetFailure();
    this.live.clear();
    host.publish();
    try {
      if (host.window.hasLater && submission.kind === "send") {
        await host.readNewest(host.signal());
        submission.leafBefore = host.window.leafId;
        host.publish();
      }
      if (host.sessionId === null) {
        const session = await withRetries(() => api.createSession(submission.sessionRequestId));
        host.sessionId = session.id;
        onCreated(session);
      }
      const sessionId = host.sessionId;
      const run = await withRetries(() => api.createRun(sessionId, runRequest(submission)));
      if (submission.kind === "send") onAccepted(sessionId, submission.content);
      announce({ kind: "run-started", sessionId, runId: run.id });
      const isStopAsked = this.isStopping;
      if (host.isAttached()) this.follow(run.id, this.turnKey);
      else this.submission = null;
      if (isStopAsked && this.turn !== null) await this.cancel(this.turn);
    } catch (error) {
      this.failSubmission(submission, error);
    }
  }

  private failSubmission(submission: Submission, error: unknown): void {
    submission.status = "failed";
    submission.error = error;
    this.isStopping = false;
    if (!this.host.isAttached()) {
      // The person has gone elsewhere, and finds it as a draft when they come back.
      this.submission = null;
      this.host.dependencies.onError(error, sentences.failures.notSent);
      return;
    }
    if (!(error instanceof ApiError) || error.reason !== "RUN_IN_PROGRESS") {
      this.host.publish();
      return;
    }
    // Another tab or device was faster. Its answer is shown, and what was typed comes back.
    this.takeBack();
    this.host.dependencies.onError(error, sentences.failures.isBusy);
    const runId = error.metadata.run_id;
    if (runId !== undefined) this.follow(runId, `run:${runId}`);
  }

  private async cancel(turn: LiveTurn): Promise<void> {
    try {
      this.isStopping = true;
      this.host.publish();
      await withRetries(() => this.host.dependencies.api.cancelRun(turn.runId));
    } catch (error) {
      this.isStopping = false;
      this.host.publish();
      this.host.dependencies.onError(error, sentences.failures.stop);
    }
  }

  private follow(runId: string, key: string, underWay: AnswerUnderWay | null = null): void {
    if (this.turn?.runId === runId) return;
    this.turn?.stop();
    this.turnKey = key;
    this.forgetFailure();
    this.isStopping = false;
    const turn: LiveTurn = new LiveTurn({
      api: this.host.dependencies.api,
      runId,
      store: this.live,
      underWay,
      onProgress: (state, before) => {
        if (this.turn === turn) this.progress(turn, state, before);
      },
      onConnection: (connection) => {
        const isReconnecting = connection === "reconnecting";
        if (this.turn !== turn || this.isReconnecting === isReconnecting) return;
        this.isReconnecting = isReconnecting;
        this.host.publish();
      },
    });
    this.turn = turn;
    this.host.publish();
    void this.followToEnd(turn);
  }

  private async followToEnd(turn: LiveTurn): Promise<void> {
    try {
      if ((await turn.follow()) && this.turn === turn) await this.absorb(turn);
    } catch (error) {
      if (this.turn !== turn) return;
      this.end();
      this.followError = error;
      this.live.clear();
      this.host.publish();
    }
  }

  private progress(turn: LiveTurn, state: TurnState, before: TurnState): void {
    const { host } = this;
    const asked = state.userMessage;
    if (asked !== null && before.userMessage === null) {
      host.aliases.set(asked.id, this.turnKey);
      const next = withStored(host.window, asked);
      if (next !== null) {
        host.window = next;
        this.submission = null;
        host.publish();
      } else void this.catchUp(turn, asked.id);
    }
    if (before.parts.length === 0 && state.parts.length > 0 && host.sessionId !== null) {
      host.dependencies.onBegun(host.sessionId);
    }
  }

  /** Loads what others have said before the message that this turn answers. */
  private async catchUp(turn: LiveTurn, leafId: string): Promise<void> {
    await this.loadRest(turn, leafId).catch(() => undefined);
    if (this.turn !== turn) return;
    this.submission = null;
    this.host.publish();
  }

  /** Takes the stored answer in, in the same moment in which the one in the making goes. */
  private async absorb(turn: LiveTurn): Promise<void> {
    const { host } = this;
    const { message, userMessage, isIncomplete, error, outcome } = turn.state;
    this.live.flush();
    const next = message === null || isIncomplete ? null : withStored(host.window, message);
    if (next !== null) host.window = next;
    // Of a failed answer that said nothing, nothing is stored.
    else if (message !== null || error === null) await this.loadRest(turn, message?.id ?? userMessage?.id ?? null);
    if (this.turn !== turn) return;
    this.end();
    if (outcome !== null && outcome !== "SUCCEEDED" && message === null) {
      const sentence = error?.message || failureSentence("", outcome);
      this.failure = {
        ...failureOf(turn.runId, sentence, userMessage?.id ?? host.window.leafId),
        isCancelledByUser: outcome === "CANCELLED",
      };
    }
    host.publish();
    this.live.clear();
    if (host.sessionId === null) return;
    host.dependencies.announce({ kind: "messages-changed", sessionId: host.sessionId });
    host.dependencies.onAnswered(host.sessionId);
  }

  private end(): void {
    this.turn = null;
    this.submission = null;
    this.isStopping = false;
    this.isReconnecting = false;
  }

  private async loadRest(turn: LiveTurn, leafId: string | null): Promise<void> {
    const { host } = this;
    const { sessionId } = host;
    const signal = host.signal();
    if (sessionId === null || host.window.hasLater) return;
    for (;;) {
      const base = host.window;
      const next = await untilAnswered(() => loadLater(host.dependencies.api, sessionId, base, signal, true), signal);
      if (this.turn !== turn) return;
      // Earlier messages may have been loaded meanwhile; they must not get lost.
      if (host.window !== base) continue;
      host.window = leafId !== null && next.byId.has(leafId) ? withLeaf(next, leafId) : next;
      return;
    }
  }
}

function runRequest(submission: Submission): NewRun {
  const { kind, content, userMessageId, choice, requestId } = submission;
  const request: NewRun = { ...choice, request_id: requestId };
  if (kind === "regenerate") return { ...request, regenerate_message_id: userMessageId ?? "" };
  return kind === "edit" ? { ...request, content, edit_message_id: userMessageId ?? "" } : { ...request, content };
}

function failureOf(id: string, sentence: string, userMessageId: string | null): FailureItem {
  return { kind: "failure", key: `failure:${id}`, sentence, requestId: null, userMessageId, isCancelledByUser: false };
}
