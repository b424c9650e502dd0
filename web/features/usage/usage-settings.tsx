"use client";

import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { EmptyState } from "@/components/ui/empty-state";
import { ErrorNotice } from "@/components/ui/error-notice";
import { Section } from "@/components/ui/section";
import { Skeleton } from "@/components/ui/skeleton";
import { ChoiceBar } from "./choice-bar";
import { sentences } from "./sentences";
import { UsageChart, UsageLegend } from "./usage-chart";
import {
  fetchUsage,
  formatCost,
  formatDay,
  formatNumber,
  type Measure,
  RANGES,
  type Range,
  tokensOf,
  type Usage,
} from "./usage-data";
import { UsageTable } from "./usage-table";

/** What the person's answers have used: tokens and money, by day and by model. */
export function UsageSettings() {
  const [range, setRange] = useState<Range>(30);
  const [measure, setMeasure] = useState<Measure>("tokens");
  const usage = useQuery({
    queryKey: ["usage", range],
    queryFn: ({ signal }) => fetchUsage(range, signal),
    placeholderData: keepPreviousData,
  });
  return (
    <div className="grid grid-cols-1 gap-8">
      <div className="flex flex-wrap gap-x-6 gap-y-3">
        <ChoiceBar
          label={sentences.time}
          value={String(range)}
          choices={RANGES.map((days) => ({ value: String(days), label: sentences.days(days) }))}
          onChange={(value) => setRange(Number(value) as Range)}
        />
        <ChoiceBar
          label={sentences.show}
          value={measure}
          choices={[
            { value: "tokens", label: sentences.measures.tokens },
            { value: "cost", label: sentences.measures.cost },
          ]}
          onChange={(value) => setMeasure(value as Measure)}
        />
      </div>
      {usage.data ? (
        <div className="grid grid-cols-1 gap-8" aria-busy={usage.isPlaceholderData}>
          <Figures usage={usage.data} measure={measure} />
        </div>
      ) : usage.isError ? (
        <ErrorNotice error={usage.error} title={sentences.loadFailed} onRetry={() => void usage.refetch()} />
      ) : (
        <div aria-busy="true" className="grid gap-4">
          <Skeleton className="h-14 w-full" />
          <Skeleton className="h-56 w-full" />
          <Skeleton className="h-24 w-full" />
        </div>
      )}
    </div>
  );
}

function Figures({ usage, measure }: { usage: Usage; measure: Measure }) {
  const { days, models, total } = usage;
  if (total.runs === 0) {
    return <EmptyState title={sentences.nothing}>{sentences.nothingHint}</EmptyState>;
  }
  const title = sentences.chartTitle(
    sentences.measures[measure],
    formatDay(days[0]?.key ?? ""),
    formatDay(days.at(-1)?.key ?? ""),
    formatNumber(tokensOf(total)),
    formatCost(total.cost_micro_usd),
  );
  return (
    <>
      <dl className="grid grid-cols-2 gap-4 sm:grid-cols-4">
        <Figure name={sentences.columns.answers} value={formatNumber(total.runs)} />
        <Figure name={sentences.columns.promptTokens} value={formatNumber(total.prompt_tokens)} />
        <Figure name={sentences.columns.answerTokens} value={formatNumber(total.completion_tokens)} />
        <Figure name={sentences.columns.cost} value={formatCost(total.cost_micro_usd)} />
      </dl>
      <Section title={sentences.byDay} description={sentences.byDayHint}>
        <figure className="grid gap-3">
          <UsageChart days={days} measure={measure} title={title} />
          <figcaption>{measure === "tokens" ? <UsageLegend /> : <span className="sr-only">{title}</span>}</figcaption>
        </figure>
        <details>
          <summary className="cursor-pointer rounded-sm text-sm text-ink-2">{sentences.showTable}</summary>
          <div className="pt-3">
            <UsageTable
              caption={sentences.dayTable}
              rowTitle={sentences.day}
              rows={[...days].reverse()}
              nameOf={formatDay}
              total={total}
            />
          </div>
        </details>
      </Section>
      {models.length > 0 ? (
        <Section title={sentences.byModel}>
          <UsageTable
            caption={sentences.modelTable}
            rowTitle={sentences.model}
            rows={models}
            nameOf={(key) => key || sentences.unknownModel}
          />
        </Section>
      ) : null}
    </>
  );
}

function Figure({ name, value }: { name: string; value: string }) {
  return (
    <div className="rounded-xl bg-well p-3">
      <dt className="text-[0.8125rem] text-ink-2">{name}</dt>
      <dd className="text-lg tabular-nums">{value}</dd>
    </div>
  );
}
