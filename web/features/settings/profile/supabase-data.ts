/** The other parts of supabase-js, such as storage; apart from its auth part, since few pages need them. */
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import type { AppConfig } from "@/lib/config";

/** The client for the project's other parts, acting as whoever is signed in. */
export function openData(config: AppConfig, key: string, accessToken: () => Promise<string | null>): SupabaseClient {
  return createClient(config.supabase_url, key, { accessToken });
}
