/** What was typed and not sent, per session, kept over reloads. */

const PREFIX = "concerto-draft:";
// Beyond this a browser's storage would be full after a few of them.
const MOST_CHARS = 500_000;

function keyOf(sessionId: string | null): string {
  return PREFIX + (sessionId ?? "new");
}

/** Returns a session's draft; that of a new chat for null. */
export function readDraft(sessionId: string | null): string {
  try {
    return localStorage.getItem(keyOf(sessionId)) ?? "";
  } catch {
    return "";
  }
}

/** Keeps a draft; an empty one is removed. */
export function writeDraft(sessionId: string | null, text: string): void {
  try {
    if (text.trim() === "" || text.length > MOST_CHARS) localStorage.removeItem(keyOf(sessionId));
    else localStorage.setItem(keyOf(sessionId), text);
  } catch {
    // Storage may be full or forbidden; the text still stands in the page.
  }
}

/** Removes a draft that has been sent, unless something else was typed since. */
export function dropSentDraft(sessionId: string | null, sent: string): void {
  if (readDraft(sessionId).trim() === sent.trim()) writeDraft(sessionId, "");
}
