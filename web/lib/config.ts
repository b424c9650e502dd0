"use client";

import { useEffect, useState } from "react";
import { ApiError, errorOf } from "@/lib/api/errors";
import type { operations } from "@/lib/api/schema";
import { noteServerTime } from "@/lib/auth/clock";

export type { SocialProvider } from "@/lib/api/types";

/** What differs between installations; the gateway serves it, so that one export fits all of them. */
export type AppConfig = operations["GetConfig"]["responses"][200]["content"]["application/json"];

const TRIES = 3;
const FIRST_PAUSE_MS = 300;

let known: AppConfig | undefined;
let loading: Promise<AppConfig> | undefined;

/** Loads the configuration once for the whole page. A failure is tried again, now and at the next call. */
export function loadConfig(): Promise<AppConfig> {
  loading ??= fetchWithRetries().then(
    (config) => {
      known = config;
      return config;
    },
    (error: unknown) => {
      loading = undefined;
      throw error;
    },
  );
  return loading;
}

/** The configuration, once it is there. */
export function useConfig(): AppConfig | undefined {
  // Not `known` at once: the first render must be the one that was exported.
  const [config, setConfig] = useState<AppConfig>();
  useEffect(() => {
    let isGone = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const load = () => {
      loadConfig().then(
        (loaded) => {
          if (!isGone) setConfig(loaded);
        },
        () => {
          if (!isGone) timer = setTimeout(load, 5000);
        },
      );
    };
    if (known) setConfig(known);
    else load();
    return () => {
      isGone = true;
      clearTimeout(timer);
    };
  }, []);
  return config;
}

async function fetchWithRetries(): Promise<AppConfig> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await fetchConfig();
    } catch (error) {
      if (attempt === TRIES || !(error instanceof ApiError && error.isRetryable)) throw error;
      await new Promise((resolve) => setTimeout(resolve, FIRST_PAUSE_MS * 2 ** (attempt - 1)));
    }
  }
}

async function fetchConfig(): Promise<AppConfig> {
  const address = new URL("/config.json", window.location.origin);
  const response = await fetch(address, { signal: AbortSignal.timeout(10_000) }).catch((cause: unknown) => {
    throw ApiError.network(cause);
  });
  if (!response.ok) throw await errorOf(response);
  noteServerTime(response);
  return (await response.json()) as AppConfig;
}
