"use client";

import { useConfig } from "@/lib/config";

/** Where mails are on a machine that sends none: shown only where the project runs on this machine. */
export function MailHint() {
  const config = useConfig();
  if (!config || !isLocal(config.supabase_url)) return null;
  return (
    <p className="text-sm text-muted-foreground">
      This installation keeps its mails instead of sending them. Run <code>concerto mail</code> in a terminal to read
      the newest one.
    </p>
  );
}

function isLocal(address: string): boolean {
  try {
    return ["127.0.0.1", "localhost", "[::1]"].includes(new URL(address).hostname);
  } catch {
    return false;
  }
}
