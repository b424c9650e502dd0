/**
 * The sign-in of this browser: supabase-js writes it into localStorage through the adapter below, and the rest of the
 * app reads it here. What is stored is the truth; a change by another tab arrives as a `storage` event.
 */

export const STORAGE_KEY = "concerto-auth";
const REASON_KEY = "concerto-auth-left";
const LAST_USER_KEY = "concerto-auth-user";

export type StoredSession = {
  accessToken: string;
  refreshToken: string;
  /** End and length of the access token's life by the server's clock, in milliseconds. */
  expiresAt: number;
  lifetime: number;
  userId: string;
  email: string | null;
};

/** Why nobody is signed in: the person chose so, or the sign-in was ended elsewhere or expired. */
export type LeaveReason = "chosen" | "ended";

const listeners = new Set<() => void>();
const memory = new Map<string, string>();
let adoptedUserId: string | null = null;
let readRaw: string | null = null;
let readValue: StoredSession | null = null;

/** The stored sign-in; the same object as long as nothing changed. */
export function readSession(): StoredSession | null {
  const raw = getItem(STORAGE_KEY);
  if (raw !== readRaw) {
    readRaw = raw;
    readValue = raw === null ? null : parse(raw);
  }
  return readValue;
}

/** Removes the sign-in from this browser, in all its tabs. */
export function removeSession(reason: LeaveReason): void {
  setItem(REASON_KEY, reason);
  removeItem(STORAGE_KEY);
  notify();
}

/** Why the last sign-in of this browser is gone; null before the first and while one lasts. */
export function leaveReason(): LeaveReason | null {
  const reason = getItem(REASON_KEY);
  return reason === "chosen" || reason === "ended" ? reason : null;
}

/** Forgets why the last sign-in is gone: somebody signs in anew, or has been told. */
export function forgetLeaveReason(): void {
  removeItem(REASON_KEY);
}

/** Calls back whenever the sign-in changed, here or in another tab. Returns how to end that. */
export function subscribe(listener: () => void): () => void {
  if (listeners.size === 0 && typeof window !== "undefined") window.addEventListener("storage", onStorage);
  listeners.add(listener);
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0 && typeof window !== "undefined") window.removeEventListener("storage", onStorage);
  };
}

/**
 * The storage given to supabase-js. It never removes: the client would drop a sign-in also when the auth server only
 * asks to slow down while the token has expired. Whether a sign-in has ended is decided in tokens.ts.
 */
export const clientStorage = {
  getItem,
  setItem: (key: string, value: string): void => {
    setItem(key, value);
    if (key === STORAGE_KEY) notify();
  },
  removeItem: (key: string): void => {
    if (key !== STORAGE_KEY) removeItem(key);
  },
};

/**
 * Removes what a person left in this browser besides the sign-in: drafts and the like. The colours stay, which belong
 * to the device as much.
 */
export function forgetPersonalData(): void {
  try {
    const kept = new Set(["concerto-theme", STORAGE_KEY, REASON_KEY, LAST_USER_KEY]);
    for (const key of Object.keys(window.localStorage)) {
      if (key.startsWith("concerto-") && !kept.has(key)) window.localStorage.removeItem(key);
    }
  } catch {
    // Without storage nothing was left.
  }
}

/** Notes who signs in. When it is somebody else than last time, what the other left is removed. */
export function noteUser(userId: string): void {
  const last = getItem(LAST_USER_KEY);
  if (last !== null && last !== userId) forgetPersonalData();
  setItem(LAST_USER_KEY, userId);
  adoptedUserId = userId;
}

/** Whether this very page signed the person in, not another tab. */
export function wasSignedInByThisPage(userId: string): boolean {
  return adoptedUserId === userId;
}

/** The claims of an access token, unverified: good for hints, never for decisions. */
export function claimsOf(token: string): { sub?: string; email?: string; exp?: number; iat?: number } {
  try {
    const part = (token.split(".")[1] ?? "").replace(/-/g, "+").replace(/_/g, "/");
    const bytes = Uint8Array.from(atob(part), (letter) => letter.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return {};
  }
}

function parse(raw: string): StoredSession | null {
  try {
    const value = JSON.parse(raw);
    const { access_token: accessToken, refresh_token: refreshToken } = value;
    if (typeof accessToken !== "string" || typeof refreshToken !== "string") return null;
    const claims = claimsOf(accessToken);
    const userId = value.user?.id ?? claims.sub;
    if (typeof userId !== "string") return null;
    const expiresAt = (claims.exp ?? Number(value.expires_at)) * 1000;
    const lifetime = claims.exp && claims.iat ? (claims.exp - claims.iat) * 1000 : 3_600_000;
    return { accessToken, refreshToken, expiresAt, lifetime, userId, email: value.user?.email ?? claims.email ?? null };
  } catch {
    return null;
  }
}

function onStorage(event: StorageEvent): void {
  // A null key: everything was cleared.
  if (event.key === STORAGE_KEY || event.key === null) notify();
}

function notify(): void {
  for (const listener of [...listeners]) listener();
}

// Browsers may refuse storage (private windows, policies): the sign-in then lasts as long as the page.

function getItem(key: string): string | null {
  const kept = memory.get(key);
  if (kept !== undefined) return kept;
  try {
    return window.localStorage.getItem(key);
  } catch {
    return null;
  }
}

function setItem(key: string, value: string): void {
  try {
    window.localStorage.setItem(key, value);
    memory.delete(key);
  } catch {
    memory.set(key, value);
  }
}

function removeItem(key: string): void {
  memory.delete(key);
  try {
    window.localStorage.removeItem(key);
  } catch {
    // Kept in memory only, and gone from there.
  }
}
