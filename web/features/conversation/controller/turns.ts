import { ApiError } from "@/lib/api/errors";
import type { Run } from "@/lib/api/types";
import type { NewRun } from "../conversation-api";
import type { Submission, TurnPhase } from "./conversation-state";
import { sentenceOf } from "../runs/failure-sentences";
import type { ConversationItem, FailureItem } from "./items";
import { LiveStore, LiveTurn } from "../runs/live-turn";
import { loadLater } from "./loading";
import { withLeaf, withStored } from "./message-window";
import { retryWhilePassing, untilAnswered } from "../runs/retrying";
import type { TurnState } from "../runs/run-reducer";
import type { Board } from "./dependencies";

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

  constructor(private readonly board: Board) {}

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
  begin(wish: Pick<Submission, "kind" | "content" | "choice" | "userMessageId">): boolean {
    const { board } = this;
    if (this.isBusy || !board.isAttached()) return false;
    const submission: Submission = {
      ...wish,
      requestId: crypto.randomUUID(),
      sessionRequestId: crypto.randomUUID(),
      leafBefore: board.window.leafId,
      status: "sending",
      error: null,
    };
    this.submission = submission;
    if (wish.userMessageId !== null) {
      const edited = wish.kind === "edit" ? board.window.byId.get(wish.userMessageId) : undefined;
      board.window = withLeaf(board.window, edited === undefined ? wish.userMessageId : edited.parent_id || null);
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
    const { submission, board } = this;
    if (submission?.status !== "failed") return;
    this.submission = null;
    board.window = withLeaf(board.window, submission.leafBefore);
    board.publish();
    if (submission.content !== "") board.around.onReturned(submission.content);
  }

  /** Ends the answer; what was said is kept. */
  async stop(): Promise<void> {
    if (!this.isBusy || this.isStopping) return;
    this.isStopping = true;
    this.board.publish();
    // One that is still being sent is ended as soon as it has begun.
    if (this.turn !== null) await this.cancel(this.turn);
  }

  /** Takes in what the session's newest run says: follows it, or shows why it has no answer. */
  async meet(run: Run): Promise<void> {
    const { board } = this;
    if (run.state === "RUNNING" || run.state === "QUEUED") {
      if (run.user_message_id !== "" && board.window.byId.has(run.user_message_id)) {
        board.window = withLeaf(board.window, run.user_message_id);
      }
      this.follow(run.id, run.user_message_id === "" ? `run:${run.id}` : board.keyAfter(run.user_message_id));
      return;
    }
    const { answer_message_id: answerId, user_message_id: askedId } = run;
    // The run may have ended between the two requests.
    if (answerId !== "" && !board.window.hasLater && !board.window.byId.has(answerId)) {
      board.window = await loadLater(board.around.api, run.session_id, board.window, board.signal(), true);
    }
    if (answerId === "" && run.state !== "SUCCEEDED" && askedId !== "" && board.window.leafId === askedId) {
      this.failure = {
        ...failureOf(run.id, sentenceOf(run.error_reason, run.state), askedId),
        isOwnDoing: run.state === "CANCELLED",
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
      const key = this.board.keyAfter(this.board.window.leafId ?? "");
      items.push({ kind: "pending", key, content, status, error });
    }
    if (this.isBusy) items.push({ kind: "live", key: this.turnKey });
    else if (submission?.kind === "regenerate") {
      const { error } = submission;
      const sentence = error instanceof Error ? error.message : sentenceOf("");
      const requestId = error instanceof ApiError ? error.requestId : null;
      items.push({ ...failureOf(submission.requestId, sentence, null), requestId });
    } else if (submission === null && this.failure !== null) items.push(this.failure);
    return items;
  }

  private async submit(submission: Submission): Promise<void> {
    const { board } = this;
    const { api, announce, onAccepted, onCreated } = board.around;
    submission.status = "sending";
    submission.error = null;
    const { userMessageId } = submission;
    const isNew = submission.kind !== "regenerate" || userMessageId === null;
    this.turnKey = isNew ? `answer:${submission.requestId}` : board.keyAfter(userMessageId);
    this.isStopping = false;
    this.forgetFailure();
    this.live.clear();
    board.publish();
    try {
      if (board.window.hasLater && submission.kind === "send") {
        await board.readNewest(board.signal());
        submission.leafBefore = board.window.leafId;
        board.publish();
      }
      if (board.sessionId === null) {
        const session = await retryWhilePassing(() => api.createSession(submission.sessionRequestId));
        board.sessionId = session.id;
        onCreated(session);
      }
      const sessionId = board.sessionId;
      const run = await retryWhilePassing(() => api.createRun(sessionId, runRequest(submission)));
      if (submission.kind === "send") onAccepted(sessionId, submission.content);
      announce({ kind: "run-started", sessionId, runId: run.id });
      const isStopAsked = this.isStopping;
      if (board.isAttached()) this.follow(run.id, this.turnKey);
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
    if (!this.board.isAttached()) {
      // The person has gone elsewhere, and finds it as a draft when they come back.
      this.submission = null;
      this.board.around.onError(error, "Your message was not sent. It is kept as a draft in its chat.");
      return;
    }
    if (!(error instanceof ApiError) || error.reason !== "RUN_IN_PROGRESS") {
      this.board.publish();
      return;
    }
    // Another tab or device was faster. Its answer is shown, and what was typed comes back.
    this.takeBack();
    this.board.around.onError(error, "Another answer is being written.");
    const runId = error.metadata.run_id;
    if (runId !== undefined) this.follow(runId, `run:${runId}`);
  }

  private async cancel(turn: LiveTurn): Promise<void> {
    try {
      this.isStopping = true;
      this.board.publish();
      await retryWhilePassing(() => this.board.around.api.cancelRun(turn.runId));
    } catch (error) {
      this.isStopping = false;
      this.board.publish();
      this.board.around.onError(error, "The answer could not be stopped.");
    }
  }

  private follow(runId: string, key: string): void {
    if (this.turn?.runId === runId) return;
    this.turn?.stop();
    this.turnKey = key;
    this.forgetFailure();
    this.isStopping = false;
    const turn: LiveTurn = new LiveTurn({
      api: this.board.around.api,
      runId,
      store: this.live,
      onProgress: (state, before) => {
        if (this.turn === turn) this.progress(turn, state, before);
      },
      onConnection: (connection) => {
        const isReconnecting = connection === "reconnecting";
        if (this.turn !== turn || this.isReconnecting === isReconnecting) return;
        this.isReconnecting = isReconnecting;
        this.board.publish();
      },
    });
    this.turn = turn;
    this.board.publish();
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
      this.board.publish();
    }
  }

  private progress(turn: LiveTurn, state: TurnState, before: TurnState): void {
    const { board } = this;
    const asked = state.userMessage;
    if (asked !== null && before.userMessage === null) {
      board.aliases.set(asked.id, this.turnKey);
      const next = withStored(board.window, asked);
      if (next !== null) {
        board.window = next;
        this.submission = null;
        board.publish();
      } else void this.catchUp(turn, asked.id);
    }
    if (before.parts.length === 0 && state.parts.length > 0 && board.sessionId !== null) {
      board.around.onBegun(board.sessionId);
    }
  }

  /** Loads what others have said before the message that this turn answers. */
  private async catchUp(turn: LiveTurn, leafId: string): Promise<void> {
    await this.loadRest(turn, leafId).catch(() => undefined);
    if (this.turn !== turn) return;
    this.submission = null;
    this.board.publish();
  }

  /** Takes the stored answer in, in the same moment in which the one in the making goes. */
  private async absorb(turn: LiveTurn): Promise<void> {
    const { board } = this;
    const { message, userMessage, isIncomplete, error, outcome } = turn.state;
    this.live.flush();
    const next = message === null || isIncomplete ? null : withStored(board.window, message);
    if (next !== null) board.window = next;
    // Of a failed answer that said nothing, nothing is stored.
    else if (message !== null || error === null) await this.loadRest(turn, message?.id ?? userMessage?.id ?? null);
    if (this.turn !== turn) return;
    this.end();
    if (outcome !== null && outcome !== "SUCCEEDED" && message === null) {
      const sentence = error?.message || sentenceOf("", outcome);
      this.failure = {
        ...failureOf(turn.runId, sentence, userMessage?.id ?? board.window.leafId),
        isOwnDoing: outcome === "CANCELLED",
      };
    }
    board.publish();
    this.live.clear();
    if (board.sessionId === null) return;
    board.around.announce({ kind: "messages-changed", sessionId: board.sessionId });
    board.around.onAnswered(board.sessionId);
  }

  private end(): void {
    this.turn = null;
    this.submission = null;
    this.isStopping = false;
    this.isReconnecting = false;
  }

  private async loadRest(turn: LiveTurn, leafId: string | null): Promise<void> {
    const { board } = this;
    const { sessionId } = board;
    const signal = board.signal();
    if (sessionId === null || board.window.hasLater) return;
    for (;;) {
      const base = board.window;
      const next = await untilAnswered(() => loadLater(board.around.api, sessionId, base, signal, true), signal);
      if (this.turn !== turn) return;
      // Earlier messages may have been loaded meanwhile; they must not get lost.
      if (board.window !== base) continue;
      board.window = leafId !== null && next.byId.has(leafId) ? withLeaf(next, leafId) : next;
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
  return { kind: "failure", key: `failure:${id}`, sentence, requestId: null, userMessageId, isOwnDoing: false };
}
