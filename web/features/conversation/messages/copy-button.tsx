"use client";

import { Check, Copy } from "lucide-react";
import { useEffect, useState } from "react";
import { toast } from "@/components/ui/toaster";
import type { ConversationItem } from "../controller/items";
import { IconButton } from "../icon-button";
import { sayPolitely } from "../live-region";
import type { AnswerPart } from "../runs/run-reducer";
import { sentences } from "../sentences";

const SHOWN_MS = 2000;

/** The text of an answer, without its tools and what the model thought. */
export function textOfParts(parts: readonly AnswerPart[]): string {
  return parts
    .filter((part) => part.kind === "text")
    .map((part) => part.text)
    .join("\n\n");
}

/** Copies the newest answer, for the keyboard. */
export async function copyLastAnswer(items: readonly ConversationItem[]): Promise<void> {
  const last = items.findLast((item) => item.kind === "answer");
  if (last?.kind !== "answer") return;
  if (await copyText(textOfParts(last.parts))) toast(sentences.message.lastCopied);
}

/** Copies what is said. */
export function CopyButton({ text }: { text: () => string }) {
  const [isCopied, setIsCopied] = useState(false);
  useEffect(() => {
    if (!isCopied) return;
    const timer = setTimeout(() => setIsCopied(false), SHOWN_MS);
    return () => clearTimeout(timer);
  }, [isCopied]);
  const copy = async () => {
    if (!(await copyText(text()))) return;
    setIsCopied(true);
    sayPolitely(sentences.message.copied);
  };
  return (
    <IconButton label={sentences.message.copy} onClick={() => void copy()}>
      {isCopied ? <Check aria-hidden /> : <Copy aria-hidden />}
    </IconButton>
  );
}

async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    toast.error(sentences.message.copyFailed);
    return false;
  }
}
