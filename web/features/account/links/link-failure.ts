import { sentences } from "../sentences";

/** The sentence for a failed link. What an address says is not shown as ours: anybody can write an address. */
export function linkFailure(code: string): string {
  const known: Readonly<Record<string, string>> = sentences.linkReasons;
  return (Object.hasOwn(known, code) ? known[code] : undefined) ?? sentences.otherLinkReason;
}
