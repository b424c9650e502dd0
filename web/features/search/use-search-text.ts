import { useEffect, useRef, useState } from "react";
import { searchAddress } from "./search-address";

const WAIT_MS = 250;

/**
 * The text in the search box. It goes into the page's address once it has stood still for a moment: the first query is
 * an entry of its own in the browser's history, what refines it is not. Going back and forth brings the text back.
 */
export function useSearchText(query: string, sessionId: string | null) {
  const [text, setText] = useState(query);
  const inAddress = useRef(query);

  function commit(next: string): void {
    if (next === inAddress.current) return;
    const isFirst = inAddress.current === "";
    inAddress.current = next;
    const address = searchAddress(next, sessionId);
    if (isFirst) window.history.pushState(null, "", address);
    else window.history.replaceState(null, "", address);
  }
  const latest = useRef(commit);
  useEffect(() => {
    latest.current = commit;
  });

  useEffect(() => {
    if (query === inAddress.current) return;
    inAddress.current = query;
    setText(query);
  }, [query]);

  useEffect(() => {
    const next = text.trim();
    if (next === inAddress.current) return;
    const timer = setTimeout(() => latest.current(next), next ? WAIT_MS : 0);
    return () => clearTimeout(timer);
  }, [text]);

  return { text, setText, commitNow: () => commit(text.trim()) };
}
