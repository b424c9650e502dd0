import { Skeleton } from "@/components/ui/skeleton";
import { sentences } from "./sentences";

/** The shape of messages that are being searched for. */
export function HitsSkeleton() {
  return (
    <div className="grid gap-2" aria-hidden>
      {["w-1/3", "w-1/4", "w-2/5"].map((width) => (
        <div key={width} className="grid gap-3 rounded-lg border px-4 py-4">
          <Skeleton className={`h-4 ${width}`} />
          <Skeleton className="h-3 w-11/12" />
          <Skeleton className="h-3 w-2/3" />
        </div>
      ))}
    </div>
  );
}

/** The search page before its address is known. */
export function SearchSkeleton() {
  return (
    <div className="mx-auto grid w-full max-w-192 grid-cols-1 gap-4 p-4 md:px-6 md:py-8" aria-busy>
      <h1 className="type-title">{sentences.title}</h1>
      <Skeleton className="h-9" />
    </div>
  );
}
