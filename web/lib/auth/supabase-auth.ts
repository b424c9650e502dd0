/**
 * The auth part of supabase-js. It is loaded when first needed, at a sign-in or an exchange of tokens: reading the
 * stored sign-in takes none of it, and the first page should not wait for it.
 */
import { AuthClient, type AuthError } from "@supabase/supabase-js";
import type { AppConfig } from "@/lib/config";
import { clientStorage, readSession, STORAGE_KEY } from "./store";

const ATTEMPT_TIMEOUT_MS = 10_000;
// From how near the end of a token the library exchanges it unasked (EXPIRY_MARGIN_MS in auth-js).
const LIBRARY_MARGIN_MS = 90_000;

/** Supabase's auth client with an exchange of tokens that asks the server exactly once. */
export class BrowserAuth extends AuthClient {
  /** Exchanges the stored refresh token for the next pair of tokens. Returns why that failed, null on success. */
  async exchange(): Promise<AuthError | null> {
    this.forgetFailure();
    const session = readSession();
    // Both calls exchange a token that looks expired, and refreshSession() would then exchange the new one again.
    const looksExpired = session !== null && session.expiresAt - Date.now() < LIBRARY_MARGIN_MS;
    const { error } = looksExpired ? await this.getSession() : await this.refreshSession();
    // getSession() keeps silent about a failure as long as the old token lasts.
    return error ?? this.lastRefreshFailure?.result.error ?? null;
  }

  // The library answers from its memory for a minute after a failure, which is too long once the network is back.
  private forgetFailure(): void {
    this.lastRefreshFailure = null;
  }
}

/** The auth client. It refreshes nothing by itself: lib/auth/tokens.ts decides when, for all tabs together. */
export function openAuth(config: AppConfig, key: string): BrowserAuth {
  return new BrowserAuth({
    url: `${config.supabase_url}/auth/v1`,
    headers: { apikey: key, Authorization: `Bearer ${key}` },
    storageKey: STORAGE_KEY,
    storage: clientStorage,
    flowType: "implicit",
    detectSessionInUrl: false,
    persistSession: true,
    autoRefreshToken: false,
    fetch: fetchWithTimeout,
  });
}

// A connection that hangs would otherwise hold up every tab that waits for new tokens.
function fetchWithTimeout(input: RequestInfo | URL, init?: RequestInit): Promise<Response> {
  const timeout = AbortSignal.timeout(ATTEMPT_TIMEOUT_MS);
  return fetch(input, { ...init, signal: init?.signal ? AbortSignal.any([init.signal, timeout]) : timeout });
}
