import type { UsageEntry } from "@/lib/api/types";
import { sentences } from "./sentences";
import { formatCost, formatNumber } from "./usage-data";

type UsageTableProps = {
  caption: string;
  /** What a row is: "Day" or "Model". */
  rowTitle: string;
  rows: readonly UsageEntry[];
  nameOf: (key: string) => string;
  total?: UsageEntry;
};

const COLUMNS = [
  sentences.columns.answers,
  sentences.columns.promptTokens,
  sentences.columns.answerTokens,
  sentences.columns.cost,
];

/** Usage in numbers, a row per day or model. */
export function UsageTable({ caption, rowTitle, rows, nameOf, total }: UsageTableProps) {
  return (
    // Focusable, so that the keyboard can scroll it where it is wider than the screen.
    // biome-ignore lint/a11y/noNoninteractiveTabindex: see above.
    <section className="overflow-x-auto" aria-label={caption} tabIndex={0}>
      <table className="w-full text-[0.8125rem] tabular-nums sm:text-sm">
        <caption className="sr-only">{caption}</caption>
        <thead>
          <tr className="border-b text-start text-ink-2">
            <th scope="col" className="py-2 pe-1.5 sm:pe-3 font-medium">
              {rowTitle}
            </th>
            {COLUMNS.map((title) => (
              <th key={title} scope="col" className="px-1.5 py-2 text-end sm:px-3 font-medium last:pe-0">
                {title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <Row key={row.key} name={nameOf(row.key)} entry={row} />
          ))}
        </tbody>
        {total ? (
          <tfoot className="border-t font-medium">
            <Row name={sentences.total} entry={total} />
          </tfoot>
        ) : null}
      </table>
    </section>
  );
}

function Row({ name, entry }: { name: string; entry: UsageEntry }) {
  return (
    <tr className="border-b last:border-b-0">
      <th scope="row" className="py-2 pe-1.5 sm:pe-3 text-start font-normal whitespace-nowrap">
        {name}
      </th>
      <td className="px-1.5 py-2 text-end sm:px-3">{formatNumber(entry.runs)}</td>
      <td className="px-1.5 py-2 text-end sm:px-3">{formatNumber(entry.prompt_tokens)}</td>
      <td className="px-1.5 py-2 text-end sm:px-3">{formatNumber(entry.completion_tokens)}</td>
      <td className="py-2 ps-1.5 text-end sm:ps-3">{formatCost(entry.cost_micro_usd)}</td>
    </tr>
  );
}
