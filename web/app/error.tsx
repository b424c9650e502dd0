"use client";

import { useEffect } from "react";
import { Button, buttonVariants } from "@/components/ui/button";
import { errorRequestId, errorSentence } from "@/components/ui/error-notice";
import { Brand } from "@/features/shell/brand";
import { pageTitle } from "@/lib/app-name";
import { paths } from "@/lib/paths";
import { sentences } from "./sentences";

/** Shown when a page broke while it was being drawn. */
export default function ErrorPage({ error, reset }: { error: Error & { digest?: string }; reset: () => void }) {
  useEffect(() => {
    document.title = pageTitle(sentences.error.title);
  }, []);
  const requestId = errorRequestId(error);
  return (
    <main className="grid min-h-dvh place-content-center justify-items-center gap-4 p-6 text-center">
      <Brand className="mb-2" />
      <h1 className="type-title">{sentences.error.title}</h1>
      <div role="alert" className="grid max-w-prose gap-2 text-balance text-ink-2">
        <p>{sentences.error.explanation}</p>
        <p className="text-sm break-words">{errorSentence(error)}</p>
        {requestId ? <p className="text-xs">{sentences.error.requestId(requestId)}</p> : null}
      </div>
      <div className="flex flex-wrap justify-center gap-2">
        <Button onClick={reset}>{sentences.error.retry}</Button>
        {/* A full load, because what is broken may be in memory. */}
        <a href={paths.home} className={buttonVariants({ variant: "outline" })}>
          {sentences.goToChats}
        </a>
      </div>
    </main>
  );
}
