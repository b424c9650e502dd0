import { Check, Copy } from "lucide-react";
import { useEffect, useState } from "react";
import { sentences } from "../sentences";

const SHOWN_MS = 2000;

/** Copies a code block. */
export function CopyCodeButton({ code }: { code: string }) {
  const [result, setResult] = useState<"copied" | "notCopied" | null>(null);

  useEffect(() => {
    if (!result) return;
    const timer = setTimeout(() => setResult(null), SHOWN_MS);
    return () => clearTimeout(timer);
  }, [result]);

  async function copy(): Promise<void> {
    try {
      await navigator.clipboard.writeText(code);
      setResult("copied");
    } catch {
      setResult("notCopied");
    }
  }

  return (
    <button
      type="button"
      onClick={copy}
      aria-label={result ? sentences[result] : sentences.copyCode}
      className="print:hidden inline-flex min-h-7 shrink-0 items-center gap-1.5 rounded-md px-2 text-xs font-medium hover:bg-hover hover:text-ink"
    >
      {result === "copied" ? <Check aria-hidden className="size-3.5" /> : <Copy aria-hidden className="size-3.5" />}
      <span aria-live="polite">{result ? sentences[result] : sentences.copy}</span>
    </button>
  );
}
