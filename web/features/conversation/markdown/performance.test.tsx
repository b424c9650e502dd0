import { render } from "@testing-library/react";
import { describe, expect, it, vi } from "vitest";
import { advance, type MarkdownDocument } from "./parsing/document";

/** Characters that were parsed and blocks that were rendered so far. The real parser and renderer do the work. */
const seen = vi.hoisted(() => ({ read: 0, rendered: 0 }));

vi.mock("./parsing/syntax-tree", async (load) => {
  const real = await load<typeof import("./parsing/syntax-tree")>();
  const parseBlocks: typeof real.parseBlocks = (source) => {
    seen.read += source.length;
    return real.parseBlocks(source);
  };
  return { ...real, parseBlocks };
});

vi.mock("./nodes", async (load) => {
  const real = await load<typeof import("./nodes")>();
  const renderNode: typeof real.renderNode = (node, context) => {
    seen.rendered += 1;
    return real.renderNode(node, context);
  };
  return { ...real, renderNode };
});

const PARTS = [
  "## Part NUMBER\n\nSome **bold** words, a [link](https://example.com/NUMBER), `code` and $x_NUMBER^2$ in a paragraph that goes on for a while, as they do when somebody explains a thing at length.\n\n",
  "- first of NUMBER\n- second with *emphasis*\n  - nested\n- third\n\n",
  '```python\ndef part_NUMBER(value: int) -> int:\n    """Doc."""\n    return value * NUMBER\n\n\nprint(part_NUMBER(2))\n```\n\n',
  "| name | value | remark |\n| --- | ---: | --- |\n| a NUMBER | 1 | long enough |\n| b NUMBER | 2 | another remark |\n\n",
  "> A quotation in part NUMBER,\n> of two lines.\n\n1. one\n2. two\n3. three\n\n",
];

/** An answer of about 2,000 tokens: 9 kB in all kinds of blocks. */
function answer(): string {
  let text = "";
  for (let part = 0; text.length < 9000; part++)
    text += (PARTS[part % PARTS.length] ?? "").replaceAll("NUMBER", String(part));
  return text;
}

/** The answer as it grows by `step` characters. */
function* states(text: string, step: number): Generator<string> {
  for (let end = step; end < text.length; end += step) yield text.slice(0, end);
  yield text;
}

/** A model's tokens are about four characters. */
const TOKEN = 4;

/** What comes between two frames of the screen, which a page renders once. */
const FRAME = 4 * TOKEN;

function mean(times: readonly number[]): number {
  return times.reduce((sum, each) => sum + each, 0) / times.length;
}

function report(what: string, times: readonly number[]): void {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (share: number) => (sorted[Math.floor((sorted.length - 1) * share)] ?? 0).toFixed(2);
  process.stdout.write(
    `${what}: ${times.length} updates, mean ${mean(times).toFixed(2)} ms, median ${at(0.5)}, p95 ${at(0.95)}, most ${at(1)}; ` +
      `first hundred ${mean(times.slice(0, 100)).toFixed(2)}, last hundred ${mean(times.slice(-100)).toFixed(2)}\n`,
  );
}

/** What each update has cost: its work, which a test can judge, and its time, which only people can. */
function costs(grown: Iterable<string>, update: (state: string) => void, work: () => number) {
  const done: number[] = [];
  const times: number[] = [];
  for (const state of grown) {
    const before = work();
    const began = performance.now();
    update(state);
    times.push(performance.now() - began);
    done.push(work() - before);
  }
  return { done, times };
}

describe("the work for each update of an answer of 2,000 tokens", () => {
  it("does not grow with the text that is there, as to reading", () => {
    let document: MarkdownDocument | null = null;
    const read = (state: string) => {
      document = advance(document, state, true);
    };
    const { done, times } = costs(states(answer(), TOKEN), read, () => seen.read);
    report("reading", times);
    expect(mean(done.slice(0, 100))).toBeGreaterThan(4);
    expect(mean(done.slice(-100))).toBeLessThan(mean(done.slice(0, 100)) * 5);
    expect(Math.max(...done)).toBeLessThan(1000);
  });

  it("does not grow with the text that is there, as to rendering", async () => {
    const { RenderedDocument } = await import("./rendered");
    const view = render(<RenderedDocument text="" streaming />);
    const show = (state: string) => view.rerender(<RenderedDocument text={state} streaming />);
    const { done, times } = costs(states(answer(), FRAME), show, () => seen.rendered);
    report("reading and rendering", times);
    expect(Math.max(...done.slice(0, 100))).toBeGreaterThan(0);
    // The last block, the one before it, and one that has just begun.
    expect(Math.max(...done)).toBeLessThan(5);
  });
});
