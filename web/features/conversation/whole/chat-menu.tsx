"use client";

import { Braces, Copy, Ellipsis, FileDown, Printer } from "lucide-react";
import { useRouter } from "next/navigation";
import {
  DropdownMenu,
  DropdownMenuContent,
  DropdownMenuItem,
  DropdownMenuSeparator,
  DropdownMenuTrigger,
} from "@/components/ui/dropdown-menu";
import { toast, toastError } from "@/components/ui/toaster";
import { paths } from "@/lib/paths";
import { conversationApi } from "../conversation-api";
import { sentences } from "../sentences";
import { chatAsJson, chatAsMarkdown, fileNameOf } from "./chat-text";
import { readChat, type WholeChat } from "./read-chat";

/** What can be had of a whole chat: a copy, a file, a page to print. */
export function ChatMenu({ sessionId }: { sessionId: string }) {
  const router = useRouter();
  return (
    <DropdownMenu modal={false}>
      <DropdownMenuTrigger
        aria-label={sentences.whole.menu}
        title={sentences.whole.menu}
        className="ms-auto inline-flex size-8 shrink-0 items-center justify-center rounded-lg text-ink-2 hover:bg-active hover:text-ink pointer-coarse:size-11"
      >
        <Ellipsis className="size-4" aria-hidden />
      </DropdownMenuTrigger>
      <DropdownMenuContent align="end">
        <DropdownMenuItem onSelect={() => void copyChat(sessionId)}>
          <Copy aria-hidden />
          {sentences.whole.copy}
        </DropdownMenuItem>
        <DropdownMenuItem onSelect={() => void saveChat(sessionId, "md", "text/markdown", chatAsMarkdown)}>
          <FileDown aria-hidden />
          {sentences.whole.asMarkdown}
        </DropdownMenuItem>
        <DropdownMenuItem onSelect={() => void saveChat(sessionId, "json", "application/json", chatAsJson)}>
          <Braces aria-hidden />
          {sentences.whole.asJson}
        </DropdownMenuItem>
        <DropdownMenuSeparator />
        <DropdownMenuItem onSelect={() => router.push(paths.wholeChat(sessionId))}>
          <Printer aria-hidden />
          {sentences.whole.open}
        </DropdownMenuItem>
      </DropdownMenuContent>
    </DropdownMenu>
  );
}

async function copyChat(sessionId: string): Promise<void> {
  const reading = readChat(conversationApi(), sessionId).then(chatAsMarkdown);
  try {
    // The permission to copy is the click's, and lasts less long than a slow network: the text may come behind it.
    const text = reading.then((markdown) => new Blob([markdown], { type: "text/plain" }));
    await navigator.clipboard.write([new ClipboardItem({ "text/plain": text })]);
    toast.success(sentences.whole.copied);
  } catch {
    await reading.then(
      () => toast.error(sentences.message.copyFailed),
      (error: unknown) => toastError(error, sentences.whole.failed),
    );
  }
}

async function saveChat(
  sessionId: string,
  ending: string,
  type: string,
  write: (chat: WholeChat) => string,
): Promise<void> {
  try {
    const chat = await readChat(conversationApi(), sessionId);
    const address = URL.createObjectURL(new Blob([write(chat)], { type: `${type};charset=utf-8` }));
    const link = document.createElement("a");
    link.href = address;
    link.download = fileNameOf(chat, ending);
    link.click();
    // The browser has begun to save by then.
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  } catch (error) {
    toastError(error, sentences.whole.failed);
  }
}
