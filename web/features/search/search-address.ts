import { useSearchParams } from "next/navigation";
import { paths } from "@/lib/paths";

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** The address of a search; with a session, of one within that chat. */
export function searchAddress(query: string, sessionId: string | null): string {
  const address = paths.search(query);
  return sessionId ? `${address}${address.includes("?") ? "&" : "?"}session=${sessionId}` : address;
}

/** What the page's address says is searched for, and in which chat. */
export function useSearchAddress(): { query: string; sessionId: string | null } {
  const parameters = useSearchParams();
  const session = parameters.get("session");
  return { query: (parameters.get("q") ?? "").trim(), sessionId: session && UUID.test(session) ? session : null };
}
