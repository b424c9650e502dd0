import { sentences } from "./sentences";

/** The id under which the server's logs know a failed request, for people to pass on. */
export function RequestId({ id }: { id: string }) {
  return (
    <p className="text-xs break-all text-ink-2">
      {sentences.requestId} <code className="select-all">{id}</code>
    </p>
  );
}
