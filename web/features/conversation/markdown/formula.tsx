import { useEffect, useLayoutEffect, useRef, useState } from "react";
import { cn } from "@/lib/utils";
import { PENDING_FORMULA } from "./parsing/open-ends";
import { ScrollBox } from "./scroll-box";
import { sentences } from "./sentences";

type Typesetter = typeof import("./typesetter");

let typesetter: Typesetter | null = null;
let loading: Promise<Typesetter> | null = null;

function loadTypesetter(): Promise<Typesetter> {
  loading ??= import("./typesetter").then(
    (module) => {
      typesetter = module;
      return module;
    },
    (error: unknown) => {
      // The next formula tries again.
      loading = null;
      throw error;
    },
  );
  return loading;
}

/** The typesetter once it is loaded; a formula can be read as its source without it. */
function useTypesetter(): Typesetter | null {
  const [module, setModule] = useState(typesetter);
  useEffect(() => {
    if (module) return;
    let current = true;
    loadTypesetter().then(
      (loaded) => current && setModule(loaded),
      () => undefined,
    );
    return () => {
      current = false;
    };
  }, [module]);
  return module;
}

export type FormulaProps = {
  tex: string;
  /** Set large, in a line of its own. */
  display?: boolean;
};

/** A formula. Shows its source until it can be set, while it is being written, and when it has a mistake. */
export function Formula({ tex, display = false }: FormulaProps) {
  const [source = "", ...rest] = tex.split(PENDING_FORMULA);
  const pending = rest.length > 0;
  const place = useRef<HTMLSpanElement>(null);
  const typeset = useTypesetter();
  const [isSet, setIsSet] = useState(false);

  // The place's content is the typesetter's; React renders none there.
  useLayoutEffect(() => {
    const element = place.current;
    if (!element) return;
    const done = !pending && typeset !== null && typeset.typeset(source, element, display);
    if (!done) element.textContent = source;
    setIsSet(done);
  }, [typeset, source, pending, display]);

  const formula = (
    <span
      ref={place}
      dir="ltr"
      className={cn(!isSet && "font-mono text-[0.9em] text-ink-2", !isSet && display && "whitespace-pre-wrap")}
    />
  );
  if (!display) return formula;
  return (
    <ScrollBox label={sentences.formula} inText className="py-1 text-center">
      {formula}
    </ScrollBox>
  );
}
