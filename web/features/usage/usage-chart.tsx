import { useId } from "react";
import type { UsageEntry } from "@/lib/api/types";
import { cn } from "@/lib/utils";
import { sentences } from "./sentences";
import {
  formatCost,
  formatDay,
  formatNumber,
  formatShort,
  type Measure,
  measured,
  niceMaximum,
  tokensOf,
} from "./usage-data";

const WIDTH = 640;
const HEIGHT = 250;
const LEFT = 84;
const BOTTOM = 32;
const TOP = 18;
const RIGHT = 16;

type UsageChartProps = { days: readonly UsageEntry[]; measure: Measure; title: string };

/** A bar per day. The same numbers stand in the table below it. */
export function UsageChart({ days, measure, title }: UsageChartProps) {
  const id = useId();
  const top = niceMaximum(Math.max(...days.map((day) => measured(day, measure))));
  const plotHeight = HEIGHT - BOTTOM - TOP;
  const slot = (WIDTH - LEFT - RIGHT) / days.length;
  const labelEvery = Math.max(1, Math.ceil(days.length / 8));
  return (
    <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-labelledby={id} className="h-auto w-full">
      <title id={id}>{title}</title>
      {[0, 0.5, 1].map((part) => {
        const y = TOP + plotHeight * (1 - part);
        return (
          <g key={part}>
            <line x1={LEFT} x2={WIDTH} y1={y} y2={y} className="stroke-line" />
            <text x={LEFT - 8} y={y + 4} textAnchor="end" className="fill-ink-2 text-[12px] max-sm:text-[20px]">
              {formatShort(top * part, measure)}
            </text>
          </g>
        );
      })}
      {days.map((day, index) => {
        const x = LEFT + index * slot;
        const height = (measured(day, measure) / top) * plotHeight;
        return (
          <g key={day.key}>
            {/* As wide and high as its place, so that small days can be pointed at. */}
            <rect x={x} y={TOP} width={slot} height={plotHeight} className="fill-transparent">
              <title>{describe(day)}</title>
            </rect>
            <Bar
              day={day}
              measure={measure}
              x={x + slot * 0.15}
              width={slot * 0.7}
              height={height}
              plotHeight={plotHeight}
            />
            {index % labelEvery === 0 ? (
              <text
                x={x + slot / 2}
                y={HEIGHT - 8}
                textAnchor="middle"
                className={cn(
                  "fill-ink-2 text-[12px] max-sm:text-[20px]",
                  index % (labelEvery * 2) === 0 ? "" : "max-sm:hidden",
                )}
              >
                {formatDay(day.key)}
              </text>
            ) : null}
          </g>
        );
      })}
    </svg>
  );
}

type BarProps = { day: UsageEntry; measure: Measure; x: number; width: number; height: number; plotHeight: number };

/** Prompts below, answers above; one colour for money. */
function Bar({ day, measure, x, width, height, plotHeight }: BarProps) {
  if (height <= 0) return null;
  const bottom = TOP + plotHeight;
  if (measure === "cost") {
    return (
      <rect x={x} y={bottom - height} width={width} height={height} className="pointer-events-none fill-chart-1" />
    );
  }
  const promptHeight = (day.prompt_tokens / tokensOf(day)) * height;
  return (
    <g className="pointer-events-none">
      <rect x={x} y={bottom - promptHeight} width={width} height={promptHeight} className="fill-chart-1" />
      <rect x={x} y={bottom - height} width={width} height={height - promptHeight} className="fill-chart-2" />
    </g>
  );
}

function describe(day: UsageEntry): string {
  const answers = sentences.answerCount(day.runs, formatNumber(day.runs));
  return sentences.bar(formatDay(day.key), answers, formatNumber(tokensOf(day)), formatCost(day.cost_micro_usd));
}

/** What the colours mean. */
export function UsageLegend() {
  return (
    <p className="flex flex-wrap gap-4 text-[0.8125rem] text-ink-2">
      <span className="inline-flex items-center gap-1.5">
        <span aria-hidden className="size-3 rounded-xs bg-chart-1" /> {sentences.columns.promptTokens}
      </span>
      <span className="inline-flex items-center gap-1.5">
        <span aria-hidden className="size-3 rounded-xs bg-chart-2" /> {sentences.columns.answerTokens}
      </span>
    </p>
  );
}
