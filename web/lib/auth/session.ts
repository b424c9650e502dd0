/** Signing in and out of this browser. */
import { authorizedFetch } from "@/lib/api/client";
import { ApiError, errorOf } from "@/lib/api/errors";
import { newTraceparent } from "@/lib/api/trace";
import type { AuthSession } from "@/lib/api/types";
import { announce } from "@/lib/broadcast";
import { paths } from "@/lib/paths";
import { sentences } from "./sentences";
import {
  claimsOf,
  forgetLeaveReason,
  forgetPersonalData,
  leaveReason,
  noteUser,
  readSession,
  removeSession,
} from "./store";
import { openAuthClient, unavailable } from "./tokens";

/** Begins the sign-in of this browser with tokens of the gateway or of a link. Throws ApiError when they are refused. */
export async function adoptSession(tokens: Pick<AuthSession, "access_token" | "refresh_token">): Promise<void> {
  const client = await openAuthClient();
  const { sub } = claimsOf(tokens.access_token);
  if (sub) noteUser(sub);
  const { error } = await client.setSession(tokens);
  if (error) {
    if (!error.status) throw ApiError.network(error);
    if (error.status >= 500 || error.status === 429) throw unavailable(error);
    const fields = { code: error.status, status: "UNAUTHENTICATED", reason: "TOKEN_INVALID" };
    throw new ApiError(sentences.notValid, fields, { cause: error });
  }
  forgetLeaveReason();
}

/**
 * Ends sign-ins: of this browser at once, even offline (local); of all of the person's (global); of all others, which
 * throws ApiError when it did not happen.
 */
export async function signOut(scope: "local" | "global" | "others" = "local"): Promise<void> {
  if (scope === "local") {
    const session = readSession();
    leave();
    if (session) tellServer(session.accessToken);
    return;
  }
  const response = await authorizedFetch("/auth/logout", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ scope }),
  });
  if (!response.ok) throw await errorOf(response);
  if (scope === "global") leave();
}

/** Where to sign in: comes back to where the person is, unless they have chosen to leave. */
export function logInAddress(): string {
  if (leaveReason() === "chosen") return paths.logIn;
  const { pathname, search } = window.location;
  return pathname === paths.home ? paths.logIn : `${paths.logIn}?next=${encodeURIComponent(pathname + search)}`;
}

function leave(): void {
  removeSession("chosen");
  forgetPersonalData();
  announce({ kind: "signed-out" });
}

// This browser has left already; that the server forgets the refresh token is good, but nothing to wait or fail for.
function tellServer(token: string): void {
  fetch("/auth/logout", {
    method: "POST",
    keepalive: true,
    headers: { "content-type": "application/json", authorization: `Bearer ${token}`, traceparent: newTraceparent() },
    body: JSON.stringify({ scope: "local" }),
  }).catch(() => undefined);
}
