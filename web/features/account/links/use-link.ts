"use client";

import { useEffect, useRef, useState } from "react";
import { type LinkResult, takeLink } from "@/lib/auth/link-result";

/** What the link brought that led to this page, once; undefined until it has been looked at. */
export function useLink(): LinkResult | undefined {
  const [result, setResult] = useState<LinkResult>();
  const taken = useRef<LinkResult | null>(null);
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout>;
    // After the address has been cleaned for the last time, which would undo a way on that was taken before.
    const show = (link: LinkResult) => {
      timer = setTimeout(() => setResult(link), 0);
    };
    // Effects may run twice in development, and the second time the address is clean.
    taken.current ??= takeLink();
    show(taken.current);
    // Another link, put into the address of the open page: browsers load nothing anew for that.
    const onHashChange = () => {
      const link = takeLink();
      if (link.kind !== "none") show(link);
    };
    window.addEventListener("hashchange", onHashChange);
    return () => {
      clearTimeout(timer);
      window.removeEventListener("hashchange", onHashChange);
    };
  }, []);
  return result;
}
