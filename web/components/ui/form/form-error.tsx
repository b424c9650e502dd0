import type { ApiError } from "@/lib/api/errors";
import { RequestId } from "../request-id";
import { sentences } from "../sentences";

type FormErrorProps = { error: ApiError | null; waitSeconds: number };

/** What is wrong with a form as a whole, in words, with the request id when the fault is the server's. */
export function FormError({ error, waitSeconds }: FormErrorProps) {
  if (!error) return null;
  return (
    <div className="grid gap-1 rounded-xl border border-danger-line bg-danger-soft p-3 text-sm">
      <p role="alert">{error.message}</p>
      {waitSeconds > 0 ? (
        // Not announced every second; the alert has named the time.
        <p aria-hidden className="text-ink-2 tabular-nums">
          {sentences.secondsLeft(waitSeconds)}
        </p>
      ) : null}
      {error.code >= 500 && error.requestId ? <RequestId id={error.requestId} /> : null}
    </div>
  );
}
