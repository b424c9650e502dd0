"use client";

import { RichText } from "@/components/ui/rich-text";
import { useConfig } from "@/lib/config";
import { sentences } from "../sentences";

/** Where mails are on a machine that sends none: shown only where the project runs on this machine. */
export function MailHint() {
  const config = useConfig();
  if (!config || !isLocal(config.supabase_url)) return null;
  return (
    <p className="text-sm text-ink-2">
      <RichText sentence={sentences.mailHint} parts={{ command: <code>concerto mail</code> }} />
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
