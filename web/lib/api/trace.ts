/** The trace of a request: made here, so that what a person waited for and what the servers did carry one id. */

/** A W3C traceparent header of a new trace (https://www.w3.org/TR/trace-context/#traceparent-header). */
export function newTraceparent(): string {
  // The last byte asks to be recorded; the gateway decides.
  return `00-${randomHex(16)}-${randomHex(8)}-01`;
}

function randomHex(bytes: number): string {
  const numbers = crypto.getRandomValues(new Uint8Array(bytes));
  // All zeros would be no id.
  if (numbers.every((number) => number === 0)) return randomHex(bytes);
  return Array.from(numbers, (number) => number.toString(16).padStart(2, "0")).join("");
}
