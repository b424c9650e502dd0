import { type ReactNode, useEffect, useRef, useState } from "react";
import { LANGUAGES } from "./languages";

type Highlighter = typeof import("./highlighter");
type Highlighted = { code: string; nodes: ReactNode };

/** Longer code stays plain: highlighting it would hold up the page. */
const LONGEST = 60_000;
const MOST_CACHED = 60;

let highlighter: Highlighter | null = null;
const ready = new Set<string>();
const loading = new Map<string, Promise<void>>();
const cache = new Map<string, Highlighted>();

/** Loads a language's grammar, those that it needs, and the highlighter itself. */
function loadLanguage(name: string): Promise<void> {
  let promise = loading.get(name);
  if (!promise) {
    promise = load(name).catch((error: unknown) => {
      // The next block of this language tries again.
      loading.delete(name);
      throw error;
    });
    loading.set(name, promise);
  }
  return promise;
}

async function load(name: string): Promise<void> {
  const wanted = new Set([name]);
  for (const each of wanted) for (const needed of LANGUAGES[each]?.needs ?? []) wanted.add(needed);
  const [module] = await Promise.all([
    import("./highlighter"),
    ...[...wanted].map(async (each) => {
      const [core, grammar] = await Promise.all([import("./highlighter"), LANGUAGES[each]?.load()]);
      if (grammar) core.addGrammar(each, grammar.default);
    }),
  ]);
  highlighter = module;
  ready.add(name);
}

function highlightNow(language: string, code: string, keep: boolean): Highlighted | null {
  const key = `${language}\n${code}`;
  const known = cache.get(key);
  if (known) return known;
  if (!highlighter || !ready.has(language)) return null;
  const result = { code, nodes: highlighter.highlight(language, code) };
  if (keep) {
    cache.set(key, result);
    const oldest = cache.keys().next();
    if (cache.size > MOST_CACHED && !oldest.done) cache.delete(oldest.value);
  }
  return result;
}

/**
 * A code block's highlighted beginning and its plain rest. The highlighting of code that is still being written takes a
 * tenth of the time at most; between two rounds, what is new is plain.
 */
export function useHighlighted(
  language: string | null,
  code: string,
  open: boolean,
): { head: ReactNode; rest: string } {
  const wanted = code.length > LONGEST ? null : language;
  const [state, setState] = useState<Highlighted | null>(() =>
    wanted && !open ? highlightNow(wanted, code, true) : null,
  );
  const notBefore = useRef(0);

  useEffect(() => {
    if (!wanted) return;
    let current = true;
    const run = (): void => {
      if (!current) return;
      const began = performance.now();
      const result = highlightNow(wanted, code, !open);
      const took = performance.now() - began;
      notBefore.current = began + Math.max(150, took * 10);
      if (result) setState(result);
      // The grammar may be missing because the network is; the code can be read without colours.
      else loadLanguage(wanted).then(run, () => undefined);
    };
    const timer = setTimeout(run, open ? Math.max(0, notBefore.current - performance.now()) : 0);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [wanted, code, open]);

  if (!wanted || !state || !code.startsWith(state.code)) return { head: null, rest: code };
  return { head: state.nodes, rest: code.slice(state.code.length) };
}
