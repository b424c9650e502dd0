import { QueryClient } from "@tanstack/react-query";
import { ApiError } from "./api/errors";

/** Reads are repeated when it may help: the network, a server that is busy or away. Refusals are final. */
function isWorthRetrying(failures: number, error: unknown): boolean {
  if (failures >= 3) return false;
  if (!(error instanceof ApiError)) return failures < 1;
  return error.isNetwork || error.code >= 500;
}

/** The cache of what the gateway answered. Writes are never repeated silently. */
export function createQueryClient(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      queries: {
        retry: isWorthRetrying,
        retryDelay: (failures) => Math.min(5000, 400 * 2 ** failures),
        staleTime: 10_000,
        refetchOnWindowFocus: true,
        // Offline, react-query would hold requests back without a word; the gateway may even be on this machine.
        networkMode: "always",
      },
      mutations: { retry: false, networkMode: "always" },
    },
  });
}
