import { Skeleton } from "@/components/ui/skeleton";
import { ChatRowsSkeleton } from "@/features/sessions/list/chat-rows-skeleton";
import { APP_NAME } from "@/lib/app-name";
import { Brand } from "./brand";
import { sentences } from "./sentences";

/** The shape of the app while it is not known yet who is there. */
export function ShellSkeleton() {
  return (
    <div className="flex h-dvh flex-col bg-desk md:flex-row" aria-busy="true">
      <div className="hidden w-66 shrink-0 flex-col gap-4 p-3 md:flex" aria-hidden>
        <Brand className="h-9 px-1" />
        <Skeleton className="h-9" />
        <ChatRowsSkeleton rows={8} />
      </div>
      <div className="flex h-12 shrink-0 items-center justify-center md:hidden" aria-hidden>
        <Brand />
      </div>
      <main className="flex-1 bg-sheet p-4 md:my-2 md:me-2 md:rounded-xl md:p-8 md:shadow-1">
        <h1 className="sr-only">{APP_NAME}</h1>
        <p className="sr-only" role="status">
          {sentences.loading}
        </p>
        <div className="mx-auto grid max-w-180 gap-4" aria-hidden>
          <Skeleton className="h-6 w-1/3" />
          <Skeleton className="h-4 w-5/6" />
          <Skeleton className="h-4 w-3/4" />
          <Skeleton className="h-4 w-2/3" />
        </div>
      </main>
    </div>
  );
}
