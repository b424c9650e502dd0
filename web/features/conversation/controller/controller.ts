import type { AnswerUnderWay } from "@/lib/api/types";
import type { Announcement } from "@/lib/broadcast";
import type { LiveStore } from "../runs/live-turn";
import { sentences } from "../sentences";
import {
  type Choice,
  type ConversationSnapshot,
  type LoadState,
  NEW_CHAT,
  type ScrollTarget,
} from "./conversation-state";
import type { Dependencies, TurnHost } from "./dependencies";
import { ItemBuilder } from "./items";
import { loadAround, loadEarlier, loadLater, loadNewest } from "./loading";
import {
  activePath,
  EMPTY_WINDOW,
  type MessageWindow,
  windowOf,
  withBranch,
  withLeaf,
  withNewest,
} from "./message-window";
import { Turns } from "./turns";

/** Where a message stands. */
export type Place = { messageId: string; order: number };

/**
 * One conversation: its loaded messages and its turns. Knows nothing of React; each change makes a new snapshot.
 * Works between `attach` and `detach`; a run goes on at the server in any case.
 */
export class ConversationController implements TurnHost {
  /** Tells this conversation from others, for what belongs to it on the page. */
  readonly key = crypto.randomUUID();
  readonly aliases = new Map<string, string>();
  sessionId: string | null;
  window: MessageWindow = EMPTY_WINDOW;
  /** The answer in the making. */
  readonly live: LiveStore;
  /** Whether another tab has said something that this one has not looked at. */
  isStale = false;
  private readonly turns: Turns;
  private readonly isNew: boolean;
  private hasAddress = false;
  private visited: string;
  private readonly builder = new ItemBuilder(this.aliases);
  private readonly listeners = new Set<() => void>();
  private snapshot: ConversationSnapshot;
  private phase: ConversationSnapshot["phase"];
  private loadError: unknown = null;
  private paging: { earlier: LoadState; later: LoadState } = { earlier: "idle", later: "idle" };
  private life: AbortController | null = null;
  private place: Place | null;
  private target: ScrollTarget | null = null;
  private epoch = 0;
  private isRefreshing = false;
  private mustRefreshAgain = false;
  private branching: Promise<void> = Promise.resolve();

  /** sessionId: null for a new chat. place: the message that is to be shown first. */
  constructor(
    sessionId: string | null,
    readonly dependencies: Dependencies,
    place: Place | null = null,
  ) {
    this.sessionId = sessionId;
    this.isNew = sessionId === null;
    this.place = place;
    this.visited = place?.messageId ?? "";
    this.phase = sessionId === null ? "new" : "loading";
    this.turns = new Turns(this);
    this.live = this.turns.live;
    this.snapshot = { ...NEW_CHAT, sessionId, phase: this.phase };
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly getSnapshot = (): ConversationSnapshot => this.snapshot;

  /** Whether this is the conversation of an address; a new chat keeps its page when it becomes a session. */
  belongsTo(sessionId: string | null): boolean {
    return sessionId === this.sessionId || (sessionId === null && this.isNew && !this.hasAddress);
  }

  /** Notes that the address names the session by now. */
  settleAddress(sessionId: string | null): void {
    if (sessionId !== null && sessionId === this.sessionId) this.hasAddress = true;
  }

  /** Begins to work: loads what there is, follows what runs. */
  attach(): void {
    this.life ??= new AbortController();
    if (this.sessionId !== null && !this.turns.isBusy) void this.load();
  }

  /** Ends all reading. What is being sent is still sent. */
  detach(): void {
    this.life?.abort();
    this.life = null;
    this.turns.detach();
  }

  keyAfter(messageId: string): string {
    return this.builder.keyAfter(messageId);
  }

  isAttached(): boolean {
    return this.life !== null;
  }

  signal(): AbortSignal {
    return this.life?.signal ?? AbortSignal.abort();
  }

  /** Loads the conversation, at its place when there is one. */
  readonly load = async (): Promise<void> => {
    const { sessionId, place } = this;
    const signal = this.signal();
    if (sessionId === null || signal.aborted) return;
    if (this.phase !== "ready") this.phase = "loading";
    this.turns.forgetFailure();
    this.publish();
    try {
      const [run, underWay] = await Promise.all([
        this.dependencies.api.newestRun(sessionId, signal),
        place === null ? this.readNewest(signal) : this.readPlace(place, signal).then(() => null),
      ]);
      if (run !== null && !this.turns.isBusy) await this.turns.showNewest(run, underWay);
      if (place !== null) this.aim(place);
      this.phase = "ready";
      this.loadError = null;
    } catch (error) {
      if (signal.aborted) return;
      if (this.phase === "ready") this.turns.followError = error;
      else this.phase = "failed";
      this.loadError = error;
    }
    this.publish();
  };

  /** Looks for what other tabs and devices have done. */
  readonly refresh = async (): Promise<void> => {
    const { sessionId } = this;
    if (sessionId === null || this.life === null) return;
    if (this.phase === "failed") return this.load();
    if (this.phase !== "ready" || this.turns.isBusy || this.window.hasLater) return;
    if (this.isRefreshing) {
      // What is being read may be older than the news.
      this.mustRefreshAgain = true;
      return;
    }
    this.isRefreshing = true;
    this.isStale = false;
    const signal = this.signal();
    const before = this.window;
    try {
      const [run, newest] = await Promise.all([
        this.dependencies.api.newestRun(sessionId, signal),
        loadNewest(this.dependencies.api, sessionId, signal),
      ]);
      // The person may have sent something meanwhile; their turn knows more than what was read before it.
      if (signal.aborted || this.turns.isBusy || this.window !== before) return;
      this.window = withNewest(before, newest.messages, newest.hasEarlier);
      if (this.window.messages[0] !== before.messages[0]) this.epoch += 1;
      this.turns.forgetFailure();
      if (run !== null) await this.turns.showNewest(run, newest.underWay);
      this.publish();
    } catch {
      // Nobody asked for it, and the page still shows what it knew.
    } finally {
      this.isRefreshing = false;
      if (this.mustRefreshAgain) {
        this.mustRefreshAgain = false;
        void this.refresh();
      }
    }
  };

  /** Takes in what another tab announces. */
  readonly onAnnouncement = (announcement: Announcement): void => {
    if (announcement.kind !== "messages-changed" && announcement.kind !== "run-started") return;
    if (announcement.sessionId !== this.sessionId) return;
    // A browser opens few connections to one server: tabs that nobody sees must not use them up. They look when shown.
    if (document.hidden) this.isStale = true;
    else void this.refresh();
  };

  /** Loads what stands before the loaded messages. */
  readonly loadEarlier = (): Promise<void> => this.extend("earlier", this.window.hasEarlier, loadEarlier);

  /** Loads what stands behind them. */
  readonly loadLater = (): Promise<void> => this.extend("later", this.window.hasLater, loadLater);

  /** Loads the end of the conversation when it is not loaded. */
  readonly jumpToLatest = async (): Promise<void> => {
    const signal = this.signal();
    this.target = null;
    if (!this.window.hasLater) return this.publish();
    try {
      await this.readNewest(signal);
      this.publish();
    } catch (error) {
      if (!signal.aborted) this.dependencies.onError(error, sentences.failures.newest);
    }
  };

  /** Shows the message that the address names, once per address. */
  visit(place: Place | null): void {
    const id = place?.messageId ?? "";
    if (id === this.visited) return;
    this.visited = id;
    if (place !== null) void this.jumpTo(place);
  }

  /** Shows a message, wherever it stands. */
  readonly jumpTo = async (place: Place): Promise<void> => {
    if (this.phase !== "ready") {
      this.place = place;
      return;
    }
    const signal = this.signal();
    try {
      const isShown = activePath(this.window).some((message) => message.id === place.messageId);
      if (!isShown) await this.readPlace(place, signal);
      this.aim(place);
      this.publish();
    } catch (error) {
      if (!signal.aborted) this.dependencies.onError(error, sentences.failures.message);
    }
  };

  /** Sends what the person says. Returns false while there is a turn. */
  readonly send = (content: string, choice: Choice): boolean =>
    this.begin({ kind: "send", content, choice, userMessageId: null });

  /** Says something else in place of a message. */
  readonly edit = (userMessageId: string, content: string, choice: Choice): boolean =>
    this.begin({ kind: "edit", content, choice, userMessageId });

  /** Has a message answered again. */
  readonly regenerate = (userMessageId: string, choice: Choice): boolean =>
    this.begin({ kind: "regenerate", content: "", choice, userMessageId });

  readonly retry = (): void => this.turns.retry();

  readonly takeBack = (): void => this.turns.takeBack();

  readonly stop = (): Promise<void> => this.turns.stop();

  /** Shows another version of a message, and what followed it. */
  readonly selectBranch = (messageId: string): Promise<void> => {
    const { sessionId } = this;
    if (sessionId === null || this.turns.isBusy) return Promise.resolve();
    const leafBefore = this.window.leafId;
    this.window = withBranch(this.window, messageId);
    const leaf = this.window.leafId;
    this.turns.forgetFailure();
    this.publish();
    // One after the other, so that the server ends with the last click.
    this.branching = this.branching.then(async () => {
      try {
        await this.dependencies.api.selectBranch(sessionId, messageId);
        this.dependencies.announce({ kind: "messages-changed", sessionId });
      } catch (error) {
        if (this.window.leafId === leaf) this.window = withLeaf(this.window, leafBefore);
        this.publish();
        this.dependencies.onError(error, sentences.failures.version);
      }
    });
    return this.branching;
  };

  async readNewest(signal: AbortSignal): Promise<AnswerUnderWay | null> {
    if (this.sessionId === null) return null;
    const { messages, hasEarlier, underWay } = await loadNewest(this.dependencies.api, this.sessionId, signal);
    this.replaceWindow(windowOf(messages, { hasEarlier, hasLater: false }));
    return underWay;
  }

  publish(): void {
    const { turns, window } = this;
    const items = this.builder.build(window);
    this.snapshot = {
      sessionId: this.sessionId,
      phase: this.phase === "new" && turns.items().length > 0 ? "ready" : this.phase,
      loadError: this.loadError,
      items: window.hasLater ? items : [...items, ...turns.items()],
      hasEarlier: window.hasEarlier,
      hasLater: window.hasLater,
      earlier: this.paging.earlier,
      later: this.paging.later,
      turn: turns.phase,
      isReconnecting: turns.isReconnecting,
      followError: turns.followError,
      target: this.target,
      epoch: this.epoch,
    };
    for (const listener of this.listeners) listener();
  }

  private begin(request: Parameters<Turns["begin"]>[0]): boolean {
    this.target = null;
    const hasBegun = this.turns.begin(request);
    if (hasBegun && this.phase === "new") this.phase = "ready";
    return hasBegun;
  }

  private async readPlace(place: Place, signal: AbortSignal): Promise<void> {
    const { sessionId } = this;
    const { api, announce } = this.dependencies;
    if (sessionId === null) return;
    let window = await loadAround(api, sessionId, place.order, signal);
    const message = window.byId.get(place.messageId);
    if (message !== undefined && !message.is_active) {
      await api.selectBranch(sessionId, message.id);
      announce({ kind: "messages-changed", sessionId });
      window = await loadAround(api, sessionId, place.order, signal);
    }
    this.replaceWindow(window);
  }

  private replaceWindow(window: MessageWindow): void {
    this.window = window;
    this.epoch += 1;
    this.paging = { earlier: "idle", later: "idle" };
  }

  private aim(place: Place): void {
    this.place = null;
    this.target = { messageId: place.messageId, visit: (this.target?.visit ?? 0) + 1 };
  }

  private async extend(side: "earlier" | "later", hasMore: boolean, load: typeof loadEarlier): Promise<void> {
    const { sessionId, window } = this;
    if (sessionId === null || !hasMore || this.paging[side] === "loading") return;
    const signal = this.signal();
    this.paging = { ...this.paging, [side]: "loading" };
    this.publish();
    let state: LoadState = "idle";
    try {
      const next = await load(this.dependencies.api, sessionId, window, signal);
      // When something else has changed the window meanwhile, the list asks again.
      if (this.window === window) this.window = next;
    } catch {
      state = "failed";
    }
    if (signal.aborted) return;
    this.paging = { ...this.paging, [side]: state };
    this.publish();
  }
}
