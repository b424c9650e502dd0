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
    <div dir="ltr" className="code-block overflow-hidden rounded-lg border">
      <div className="flex items-center justify-between gap-2 border-b py-1 pr-1 pl-3 text-xs text-muted-foreground">
        <span className="truncate">{label}</span>
        <CopyCodeButton code={code} />
      </div>
      <ScrollBox label={label === sentences.code ? label : sentences.codeIn(label)}>
        <pre className="w-max min-w-full p-3 font-mono text-[0.8125rem] leading-6 [tab-size:4]">
          <code>
            {head}
            {rest}
          </code>
        </pre>
      </ScrollBox>
    </div>
  );
}
