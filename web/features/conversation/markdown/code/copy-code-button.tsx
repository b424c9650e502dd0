import { Check, Copy } from "lucide-react";
import { useEffect, useState } from "react";

const SAID_MS = 2000;

/** Copies a code block. */
export function CopyCodeButton({ code }: { code: string }) {
  const [said, setSaid] = useState<"Copied" | "Not copied" | null>(null);

  useEffect(() => {
    if (!said) return;
    const timer = setTimeout(() => setSaid(null), SAID_MS);
    return () => clearTimeout(timer);
  }, [said]);

  async function copy(): Promise<void> {
    try {
      await navigator.clipboard.writeText(code);
      setSaid("Copied");
    } catch {
      setSaid("Not copied");
    }
  }

  return (
    <button
      type="button"
      onClick={copy}
      aria-label={said ?? "Copy code"}
      className="inline-flex min-h-7 shrink-0 items-center gap-1.5 rounded-md px-2 text-xs font-medium hover:bg-accent hover:text-accent-foreground"
    >
      {said === "Copied" ? <Check aria-hidden className="size-3.5" /> : <Copy aria-hidden className="size-3.5" />}
      <span aria-live="polite">{said ?? "Copy"}</span>
    </button>
  );
}
