import { Skeleton } from "@/components/ui/skeleton";
import { sentences } from "./sentences";

/** Stands where a conversation is being loaded. */
export function ConversationSkeleton() {
  return (
    <div className="min-h-0 flex-1 overflow-hidden px-4 pt-8">
      <div className="mx-auto grid max-w-180 gap-8">
        <Skeleton className="h-12 w-2/3 justify-self-end rounded-2xl" />
        <div className="grid gap-2">
          <Skeleton className="h-4 w-full" />
          <Skeleton className="h-4 w-11/12" />
          <Skeleton className="h-4 w-3/5" />
        </div>
        <Skeleton className="h-12 w-1/2 justify-self-end rounded-2xl" />
        <div className="grid gap-2">
          <Skeleton className="h-4 w-full" />
          <Skeleton className="h-4 w-4/5" />
        </div>
      </div>
      <p role="status" className="sr-only">
        {sentences.page.loading}
      </p>
    </div>
  );
}
