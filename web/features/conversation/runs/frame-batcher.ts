const SLOW_MS = 50;

/** Runs a task at most once per animation frame, however often it is asked for; every 50 ms when hidden or slow. */
export class FrameBatcher {
  private frame: number | null = null;
  private timer: ReturnType<typeof setTimeout> | null = null;
  private ranAt = 0;

  /** isSlow: whether a run of the task costs so much that it should not happen in every frame. */
  constructor(
    private readonly task: () => void,
    private readonly isSlow: () => boolean = () => false,
  ) {}

  /** Asks for the task. */
  request(): void {
    if (this.frame !== null || this.timer !== null) return;
    const canDraw = typeof requestAnimationFrame === "function" && !globalThis.document?.hidden;
    const wait = this.isSlow() ? Math.max(0, this.ranAt + SLOW_MS - performance.now()) : 0;
    if (canDraw && wait === 0) this.frame = requestAnimationFrame(this.run);
    // Frames stop when the tab is hidden in between: the timer comes in any case.
    this.timer = setTimeout(this.run, canDraw && wait === 0 ? 2 * SLOW_MS : Math.max(wait, canDraw ? 0 : SLOW_MS));
  }

  /** Takes a request back. */
  cancel(): void {
    if (this.frame !== null) cancelAnimationFrame(this.frame);
    if (this.timer !== null) clearTimeout(this.timer);
    this.frame = null;
    this.timer = null;
  }

  private readonly run = (): void => {
    this.cancel();
    this.ranAt = performance.now();
    this.task();
  };
}
