import type { SupabaseClient } from "@supabase/supabase-js";
import { ApiError } from "@/lib/api/errors";
import { accessToken, publishableKey } from "@/lib/auth/tokens";
import { loadConfig } from "@/lib/config";

let data: Promise<SupabaseClient> | undefined;

/** The Supabase client for storage and the like; it acts as whoever is signed in. Its own `auth` is not used. */
export function getSupabase(): Promise<SupabaseClient> {
  data ??= Promise.all([loadConfig(), import("./supabase-data")]).then(
    ([config, library]) => library.openData(config, publishableKey(config.supabase_publishable_key), accessToken),
    (error: unknown) => {
      data = undefined;
      throw error instanceof ApiError ? error : ApiError.network(error);
    },
  );
  return data;
}
