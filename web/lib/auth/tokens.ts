/**
 * The access token, kept fresh: exchanged once however many requests and tabs wait for it. supabase-js makes the
 * exchange; that it happens once is arranged here, since the library leaves races between tabs to the server.
 */
import type { AuthError } from "@supabase/supabase-js";
import { ApiError } from "@/lib/api/errors";
import { announce } from "@/lib/broadcast";
import { loadConfig } from "@/lib/config";
import { serverNow } from "./clock";
import { sentences } from "./sentences";
import { readSession, removeSession, type StoredSession, subscribe } from "./store";
import type { BrowserAuth } from "./supabase-auth";

const LOCK = "concerto-refresh";
const EXCHANGED = "concerto-exchanged-";
const WAIT_MS = 12_000;
// How long a tab is told of an exchange whose result its storage does not show yet; it waits as long for that.
const REMEMBERED_MS = 30_000;
const LOOK_MS = 50;
const LONGEST_MARGIN_MS = 60_000;
const LONGEST_PAUSE_MS = 15_000;
const WARM_UP_MS = 30_000;

let auth: Promise<BrowserAuth> | undefined;
let underWay: { refused: string; result: Promise<StoredSession | null> } | undefined;

/** Supabase's auth client, loaded when first needed. */
export function openAuthClient(): Promise<BrowserAuth> {
  auth ??= Promise.all([loadConfig(), import("./supabase-auth")]).then(
    ([config, library]) => library.openAuth(config, publishableKey(config.supabase_publishable_key)),
    (error: unknown) => {
      auth = undefined;
      throw error instanceof ApiError ? error : ApiError.network(error);
    },
  );
  return auth;
}

/** The project's key for browsers. Throws when the installation has none. */
export function publishableKey(key: string | null): string {
  if (key) return key;
  throw new ApiError(sentences.notConfigured, {
    code: -1,
    status: "FAILED_PRECONDITION",
    reason: "NOT_CONFIGURED",
  });
}

/** A token for the next request; null when nobody is signed in. Throws ApiError when a new one cannot be had now. */
export async function accessToken(): Promise<string | null> {
  const session = readSession();
  if (!session) return null;
  const now = serverNow();
  if (now === null || now < session.expiresAt) return session.accessToken;
  return (await refreshSession(session.accessToken))?.accessToken ?? null;
}

/**
 * Returns the sign-in that follows the one whose access token was refused, null when it has ended. Exchanges tokens
 * only when no tab has done so by then. Throws ApiError when that is not possible now: offline is not signed out.
 */
export function refreshSession(refused: string): Promise<StoredSession | null> {
  if (underWay?.refused !== refused) {
    const result = withLock(() => exchange(refused)).finally(() => {
      if (underWay?.result === result) underWay = undefined;
    });
    // Who waits may have given up by the time it fails.
    result.catch(() => undefined);
    underWay = { refused, result };
  }
  return within(WAIT_MS, underWay.result);
}

/** Signs this browser out because the server no longer takes the token; the person is told so at the log-in page. */
export function endSignIn(refused: string): void {
  if (readSession()?.accessToken !== refused) return;
  removeSession("ended");
  announce({ kind: "signed-out" });
}

/** Exchanges tokens a little before they expire, while the page is looked at. Returns how to stop that. */
export function keepSessionFresh(): () => void {
  let timer: ReturnType<typeof setTimeout>;
  const check = () => {
    clearTimeout(timer);
    const session = readSession();
    const left = session ? millisecondsUntilDue(session) : null;
    if (session && left !== null && left <= 0 && !document.hidden && navigator.onLine !== false) {
      // A failure shows when a request needs the token; here it only means to try again later.
      refreshSession(session.accessToken).catch(() => undefined);
    }
    const pause = left === null || left <= 0 ? LONGEST_PAUSE_MS : left;
    timer = setTimeout(check, Math.min(Math.max(pause, 1000), LONGEST_PAUSE_MS));
  };
  timer = setTimeout(check, 1000);
  // Loaded ahead of need: the exchange must not fail because this part of the app cannot be fetched just then.
  const warmUp = setTimeout(() => {
    if (readSession()) openAuthClient().catch(() => undefined);
  }, WARM_UP_MS);
  const unsubscribe = subscribe(check);
  document.addEventListener("visibilitychange", check);
  window.addEventListener("online", check);
  return () => {
    clearTimeout(timer);
    clearTimeout(warmUp);
    unsubscribe();
    document.removeEventListener("visibilitychange", check);
    window.removeEventListener("online", check);
  };
}

// Null while the server's time is unknown. Short-lived tokens get a margin in proportion.
function millisecondsUntilDue(session: StoredSession): number | null {
  const now = serverNow();
  if (now === null) return null;
  return session.expiresAt - Math.min(LONGEST_MARGIN_MS, session.lifetime / 5) - now;
}

async function exchange(refused: string): Promise<StoredSession | null> {
  const before = readSession();
  if (!before) return null;
  if (before.accessToken !== refused) return before; // Another tab, or an earlier request, has done it.
  // To exchange the old refresh token again would end the sign-in, once the server takes it for stolen.
  while (await isExchanged(refused)) {
    const session = readSession();
    if (session?.accessToken !== refused) return session;
    await new Promise((over) => setTimeout(over, LOOK_MS));
  }
  if (navigator.onLine === false) throw ApiError.network();
  const client = await openAuthClient();
  const error = await client.exchange();
  const after = readSession();
  if (after && after.accessToken !== refused) await tellExchanged(refused);
  if (after?.accessToken !== refused) return after;
  if (error && isFinal(error)) {
    endSignIn(refused);
    return null;
  }
  throw error && !error.status ? ApiError.network(error) : unavailable(error);
}

// The auth server has said that this sign-in is over. Not so: too many requests, its own errors, a key it rejects.
function isFinal(error: AuthError): boolean {
  if (error.name === "AuthSessionMissingError") return true;
  if (error.name !== "AuthApiError") return false;
  return error.status === 400 || error.status === 403 || (error.status === 401 && error.code !== undefined);
}

/** The error for an auth server that answers, but not with what is needed. */
export function unavailable(cause: unknown): ApiError {
  const fields = { code: 503, status: "UNAVAILABLE", reason: "AUTH_SERVER_UNAVAILABLE" };
  return new ApiError(sentences.unavailable, fields, { cause });
}

// Browsers offer locks on https and on the own machine only. Elsewhere tabs may race; the server forgives that.
function withLock<T>(work: () => Promise<T>): Promise<T> {
  const locks: LockManager | undefined = navigator.locks;
  return locks ? locks.request(LOCK, work) : work();
}

// Tabs of several processes see each other's localStorage late, on a busy machine by many seconds, and the lock passes on
// before that. Locks are the browser's own: one that is held for a while tells at once that a token has been exchanged.
async function isExchanged(refused: string): Promise<boolean> {
  const { held = [] } = (await navigator.locks?.query?.()) ?? {};
  return held.some(({ name }) => name === EXCHANGED + checksum(refused));
}

function tellExchanged(refused: string): Promise<void> {
  const locks: LockManager | undefined = navigator.locks;
  if (!locks?.query) return Promise.resolve();
  return new Promise((told) => {
    const hold = () => {
      told();
      return new Promise((over) => setTimeout(over, REMEMBERED_MS));
    };
    locks.request(EXCHANGED + checksum(refused), { mode: "shared" }, hold).catch(() => told());
  });
}

// Names the token without being it (FNV-1a).
function checksum(text: string): string {
  let sum = 0x811c9dc5;
  for (let place = 0; place < text.length; place += 1) sum = Math.imul(sum ^ text.charCodeAt(place), 0x01000193);
  return (sum >>> 0).toString(36);
}

function within<T>(milliseconds: number, result: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(ApiError.network()), milliseconds);
    result.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
