import { Skeleton } from "@/components/ui/skeleton";
import { AccountFrame } from "./account-frame";

/** What stands in the exported page until its script has read the address: the heading, and where the form comes. */
export function AccountFallback({ title }: { title: string }) {
  return (
    <AccountFrame title={title}>
      <div aria-busy="true" className="grid gap-4">
        <Skeleton className="h-9 w-full" />
        <Skeleton className="h-9 w-full" />
        <Skeleton className="h-9 w-full" />
      </div>
    </AccountFrame>
  );
}
