import { ChevronRight, Wrench } from "lucide-react";
import type { ToolCall as Call } from "../runs/run-reducer";
import { sentences } from "../sentences";

// Longer outputs are for programs; the whole is kept at the server.
const MOST_CHARS = 20_000;

/** A tool that was asked, folded; unfolded it shows what it was asked and what it answered. */
export function ToolCall({ call, isLive }: { call: Call; isLive: boolean }) {
  const { name, output, isError } = call;
  const state =
    output === null
      ? isLive
        ? sentences.tool.working
        : sentences.tool.noAnswer
      : isError
        ? sentences.tool.failed
        : sentences.tool.done;
  const hasArguments = call.arguments !== null && Object.keys(call.arguments).length > 0;
  return (
    <details className="group my-3 rounded-xl bg-well text-sm text-ink">
      <summary className="flex min-h-9 items-center gap-2 px-3 py-2 select-none">
        <Wrench className="size-4 shrink-0 text-ink-2" aria-hidden />
        <span className="min-w-0 truncate font-mono text-[0.8125rem]">{name || sentences.tool.unnamed}</span>
        <span className={isError ? "text-danger-text" : "text-ink-2"}>{state}</span>
        <ChevronRight
          className="ms-auto size-4 shrink-0 text-ink-2 transition-transform group-open:rotate-90"
          aria-hidden
        />
      </summary>
      <div className="grid gap-3 border-t px-3 py-3">
        {hasArguments ? <Block title={sentences.tool.asked} text={JSON.stringify(call.arguments, null, 2)} /> : null}
        {output === null ? null : (
          <Block title={isError ? sentences.tool.error : sentences.tool.answered} text={output} />
        )}
        {!hasArguments && output === null ? <p className="text-ink-2">{sentences.tool.noArguments}</p> : null}
      </div>
    </details>
  );
}

function Block({ title, text }: { title: string; text: string }) {
  const shown = text.length > MOST_CHARS ? `${text.slice(0, MOST_CHARS)}…` : text;
  return (
    <div className="min-w-0">
      <p className="mb-1 text-xs text-ink-2">{title}</p>
      <pre className="max-h-80 overflow-auto rounded-md bg-well-2 p-2 font-mono text-xs wrap-anywhere whitespace-pre-wrap">
        {shown || sentences.tool.nothing}
      </pre>
    </div>
  );
}
