/**
 * The server's time. Tokens expire by the server's clock; the clock of somebody's machine may be hours off, and that
 * must neither sign anybody out nor have tokens exchanged at every request.
 */

let offsetMs: number | null = null;

/** Learns the time from an answer of the gateway. */
export function noteServerTime(response: Response): void {
  const moment = Date.parse(response.headers.get("date") ?? "");
  if (!Number.isNaN(moment)) offsetMs = moment - Date.now();
}

/** The server's time in milliseconds since 1970; null until an answer has told it. */
export function serverNow(): number | null {
  return offsetMs === null ? null : Date.now() + offsetMs;
}
