import { Skeleton } from "@/components/ui/skeleton";

/** Rows of grey where chats will be. */
export function ChatRowsSkeleton({ rows = 6 }: { rows?: number }) {
  const widths = ["w-4/5", "w-3/5", "w-11/12", "w-2/3", "w-1/2"];
  return (
    <div className="grid gap-3 px-3 py-2" aria-hidden>
      {Array.from({ length: rows }, (_, row) => row).map((row) => (
        <Skeleton key={row} className={`h-4 ${widths[row % widths.length]}`} />
      ))}
    </div>
  );
}
