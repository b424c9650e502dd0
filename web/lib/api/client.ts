/** Requests to the gateway as whoever is signed in. */
import createClient from "openapi-fetch";
import { noteServerTime } from "@/lib/auth/clock";
import { readSession, type StoredSession } from "@/lib/auth/store";
import { accessToken, endSignIn, refreshSession } from "@/lib/auth/tokens";
import { ApiError, errorOf, isAbort } from "./errors";
import type { paths } from "./schema";
import { newTraceparent } from "./trace";

const TIMEOUT_MS = 40_000;
// What the gateway says of a token that another one may replace.
const REFRESHABLE = new Set(["TOKEN_EXPIRED", "TOKEN_INVALID", "TOKEN_MISSING"]);

/** The contract's operations with their types; see `unwrap`. */
export const api = createClient<paths>({
  // Prerendering has no address; nothing is asked then.
  baseUrl: typeof window === "undefined" ? "http://localhost" : window.location.origin,
  fetch: (request: Request) => {
    const signal = AbortSignal.any([request.signal, AbortSignal.timeout(TIMEOUT_MS)]);
    return authorized((token) => send(withToken(request.clone(), token), { signal }));
  },
});

/** The operations that need no sign-in: log-in, sign-up, forgotten passwords. A 401 says something else there. */
export const anonymousApi = createClient<paths>({
  baseUrl: typeof window === "undefined" ? "http://localhost" : window.location.origin,
  fetch: (request: Request) =>
    send(request, { signal: AbortSignal.any([request.signal, AbortSignal.timeout(TIMEOUT_MS)]) }),
});

type Answer<T> = { data?: T; error?: unknown; response: Response };

/** The data of an answer. Throws ApiError for any other. */
export async function unwrap<T>(answer: Promise<Answer<T>>): Promise<T> {
  const { data, error, response } = await answer;
  if (!response.ok) throw await errorOf(response, error);
  return data as T;
}

/**
 * Fetches a path of the gateway with the access token, which is renewed once when it is refused. Returns whatever is
 * answered then. Throws ApiError when no answer comes; gives up as `init.signal` says, and not by itself.
 */
export function authorizedFetch(path: string, init: RequestInit = {}): Promise<Response> {
  const address = new URL(path, window.location.origin);
  return authorized((token) => send(withToken(new Request(address, init), token)));
}

async function authorized(attempt: (token: string | null) => Promise<Response>): Promise<Response> {
  const before = readSession();
  const token = await accessToken();
  const response = await attempt(token);
  if (response.status !== 401 || !before || token === null) return response;
  const { reason } = await errorOf(response.clone());
  if (reason === "SIGN_IN_ENDED") endSignIn(token);
  if (!REFRESHABLE.has(reason)) return response;
  const after = await refreshSession(token);
  // Somebody else may have signed in by now; this request was not theirs.
  if (!after || !isSamePerson(before, after)) return response;
  const second = await attempt(after.accessToken);
  if (second.status === 401 && REFRESHABLE.has((await errorOf(second.clone())).reason)) endSignIn(after.accessToken);
  return second;
}

async function send(request: Request, init?: RequestInit): Promise<Response> {
  request.headers.set("traceparent", newTraceparent());
  try {
    const response = await fetch(request, init);
    noteServerTime(response);
    return response;
  } catch (error) {
    if (isAbort(error) && request.signal.aborted) throw error;
    throw error instanceof ApiError ? error : ApiError.network(error);
  }
}

function withToken(request: Request, token: string | null): Request {
  if (token !== null) request.headers.set("authorization", `Bearer ${token}`);
  return request;
}

function isSamePerson(one: StoredSession, other: StoredSession): boolean {
  return one.userId === other.userId;
}
