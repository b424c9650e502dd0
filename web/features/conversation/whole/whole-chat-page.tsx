"use client";

import { useQuery } from "@tanstack/react-query";
import { ArrowLeft, Printer } from "lucide-react";
import Link from "next/link";
import { useEffect } from "react";
import { Button, buttonVariants } from "@/components/ui/button";
import { ErrorNotice } from "@/components/ui/error-notice";
import { sessionTitle } from "@/features/sessions/title";
import { pageTitle } from "@/lib/app-name";
import { paths } from "@/lib/paths";
import { conversationApi } from "../conversation-api";
import { ConversationSkeleton } from "../conversation-skeleton";
import { Markdown } from "../markdown/markdown";
import { sentences } from "../sentences";
import { speechesOf } from "./chat-text";
import { readChat } from "./read-chat";

/**
 * A chat with every message in the page, so that printing, selecting all and the browser's search reach all of it.
 * Printed as blocks: where a page ends, Chromium loses what stands in grids.
 */
export function WholeChatPage({ sessionId }: { sessionId: string }) {
  const chat = useQuery({
    queryKey: ["whole-chat", sessionId],
    queryFn: ({ signal }) => readChat(conversationApi(), sessionId, signal),
    gcTime: 0,
  });
  const title = sessionTitle(chat.data?.session);
  useEffect(() => {
    document.title = pageTitle(title);
  }, [title]);
  usePrintedLight();
  if (chat.isPending) return <ConversationSkeleton />;
  return (
    <div className="mx-auto grid w-full max-w-192 grid-cols-1 gap-6 p-4 md:px-6 md:py-8 print:block print:max-w-none print:space-y-6 print:p-0">
      <div className="flex flex-wrap gap-2 print:hidden">
        <Link href={paths.chat(sessionId)} className={buttonVariants({ variant: "ghost", size: "sm" })}>
          <ArrowLeft aria-hidden className="rtl:-scale-x-100" />
          {sentences.whole.back}
        </Link>
        {chat.data === undefined ? null : (
          <Button size="sm" onClick={() => window.print()}>
            <Printer aria-hidden />
            {sentences.whole.print}
          </Button>
        )}
      </div>
      {chat.isError ? (
        <ErrorNotice title={sentences.page.loadFailed} error={chat.error} onRetry={() => void chat.refetch()} />
      ) : (
        <>
          <h1 dir="auto" className="type-title">
            {title}
          </h1>
          {speechesOf(chat.data.messages).map(({ role, id, texts }) => (
            <article key={id} className="grid grid-cols-1 gap-2 print:block">
              <h2 className="text-[0.8125rem] font-medium text-ink-3 break-after-avoid">
                {role === "user" ? sentences.message.you : sentences.message.assistant}
              </h2>
              {role === "user" ? (
                <p
                  dir="auto"
                  className="rounded-xl bg-well px-4 py-2.5 leading-6.5 wrap-anywhere whitespace-pre-wrap print:border"
                >
                  {texts.join("\n\n")}
                </p>
              ) : (
                <Markdown text={texts.join("\n\n")} />
              )}
            </article>
          ))}
        </>
      )}
    </div>
  );
}

/** Paper is light, whatever the screen is. */
function usePrintedLight(): void {
  useEffect(() => {
    const { classList } = document.documentElement;
    let wasDark = false;
    const before = () => {
      wasDark = classList.contains("dark");
      classList.remove("dark");
    };
    const after = () => classList.toggle("dark", wasDark);
    window.addEventListener("beforeprint", before);
    window.addEventListener("afterprint", after);
    return () => {
      window.removeEventListener("beforeprint", before);
      window.removeEventListener("afterprint", after);
    };
  }, []);
}
