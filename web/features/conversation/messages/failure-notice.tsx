import { RotateCw } from "lucide-react";
import { Button } from "@/components/ui/button";
import { RequestId } from "@/components/ui/request-id";
import { cn } from "@/lib/utils";
import type { FailureItem } from "../controller/items";
import { sentences } from "../sentences";
import type { MessageActions } from "./message-actions";

/** Says why there is no answer, with a way to get one. */
export function FailureNotice({ item, actions }: { item: FailureItem; actions: MessageActions }) {
  const { userMessageId } = item;
  return (
    <div
      role={item.isCancelledByUser ? undefined : "alert"}
      className={cn(
        "flex flex-wrap items-center gap-x-3 gap-y-2 rounded-xl px-3 py-2 text-sm",
        item.isCancelledByUser ? "bg-well" : "bg-danger-soft",
      )}
    >
      <div className="min-w-0 flex-1 basis-52">
        <p>{item.sentence}</p>
        {item.requestId === null ? null : <RequestId id={item.requestId} />}
      </div>
      <Button
        variant="outline"
        size="sm"
        onClick={() => (userMessageId === null ? actions.retry() : actions.regenerate(userMessageId))}
      >
        <RotateCw aria-hidden />
        {sentences.retry}
      </Button>
    </div>
  );
}
