import { RotateCw } from "lucide-react";
import { cn } from "@/lib/utils";
import { Button } from "./button";
import { RequestId } from "./request-id";
import { sentences } from "./sentences";

/** The sentence for people that an error carries. */
export function errorSentence(error: unknown): string {
  return error instanceof Error && error.message ? error.message : sentences.unknownError;
}

/** The id under which the server's logs know the failed request. */
export function errorRequestId(error: unknown): string | null {
  if (typeof error !== "object" || error === null || !("requestId" in error)) return null;
  return typeof error.requestId === "string" && error.requestId ? error.requestId : null;
}

export type ErrorNoticeProps = {
  error: unknown;
  onRetry?: () => void;
  /** What did not work, before the reason: "The chats could not be loaded." */
  title?: string;
  className?: string;
};

/** An error in words, with its request id and a way to try again. */
export function ErrorNotice({ error, onRetry, title, className }: ErrorNoticeProps) {
  const requestId = errorRequestId(error);
  return (
    <div
      role="alert"
      className={cn(
        "grid grid-cols-1 justify-items-start gap-2 rounded-xl border border-danger-line bg-danger-soft p-3 text-sm",
        className,
      )}
    >
      {title ? <p className="font-medium">{title}</p> : null}
      <p>{errorSentence(error)}</p>
      {requestId ? <RequestId id={requestId} /> : null}
      {onRetry ? (
        <Button variant="outline" size="sm" onClick={onRetry}>
          <RotateCw aria-hidden />
          {sentences.retry}
        </Button>
      ) : null}
    </div>
  );
}
