"use client";

import { useEffect } from "react";
import { Brand } from "@/features/shell/brand";
import { Button, buttonVariants } from "@/components/ui/button";
import { errorRequestId, errorSentence } from "@/components/ui/error-notice";
import { paths } from "@/lib/paths";

/** Shown when a page broke while it was being drawn. */
export default function ErrorPage({ error, reset }: { error: Error & { digest?: string }; reset: () => void }) {
  useEffect(() => {
    document.title = "Something went wrong · Concerto";
  }, []);
  const requestId = errorRequestId(error);
  return (
    <main className="grid min-h-dvh place-content-center justify-items-center gap-4 p-6 text-center">
      <Brand className="mb-2" />
      <h1 className="font-serif text-2xl">Something went wrong</h1>
      <div role="alert" className="grid max-w-prose gap-2 text-balance text-muted-foreground">
        <p>This page could not be shown. Nothing that was sent is lost.</p>
        <p className="text-sm break-words">{errorSentence(error)}</p>
        {requestId ? <p className="text-xs">Request id: {requestId}</p> : null}
      </div>
      <div className="flex flex-wrap justify-center gap-2">
        <Button onClick={reset}>Try again</Button>
        {/* A full load, because what is broken may be in memory. */}
        <a href={paths.home} className={buttonVariants({ variant: "outline" })}>
          Go to your chats
        </a>
      </div>
    </main>
  );
}
