import { ScrollBox } from "../scroll-box";
import { sentences } from "../sentences";
import { CopyCodeButton } from "./copy-code-button";
import { languageLabel, languageOf } from "./languages";
import { useHighlighted } from "./use-highlighted";

export type CodeBlockProps = {
  code: string;
  /** The word behind the fence. */
  language?: string | null;
  /** Whether more of the code follows. */
  open?: boolean;
};

/** Fenced or indented code with its language, a button that copies it, and colours where the language is known. */
export function CodeBlock({ code, language = null, open = false }: CodeBlockProps) {
  const label = languageLabel(language);
  const { head, rest } = useHighlighted(languageOf(language), code, open);
  return (
    <div dir="ltr" className="code-block overflow-hidden rounded-xl bg-well forced-colors:border">
      <div className="flex items-center h-9 justify-between gap-2 pr-1 pl-4 text-[0.8125rem] text-ink-3">
        <span className="truncate">{label}</span>
        <CopyCodeButton code={code} />
      </div>
      <ScrollBox label={label === sentences.code ? label : sentences.codeIn(label)}>
        <pre className="w-max min-w-full print:w-auto print:whitespace-pre-wrap px-4 pt-1 pb-3.5 font-mono text-[0.84375rem] leading-5.5 [tab-size:4]">
          <code>
            {head}
            {rest}
          </code>
        </pre>
      </ScrollBox>
    </div>
  );
}
