// Reads what is left of a request's body and drops it: a sender who is still sending when the connection ends hears that it
// ended, and not why they were refused.

const MOST_BYTES = 256 * 1024 * 1024;

/** Returns when the rest has arrived, the sender has gone, or there is more than anybody sends by mistake. */
export function takeRest(incoming) {
  if (incoming.complete && incoming.readableLength === 0) return Promise.resolve();
  if (incoming.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    let bytes = 0;
    // Whoever has begun to read the body would stop the flow once nobody takes what they have read.
    for (const event of ["data", "readable"]) incoming.removeAllListeners(event);
    incoming.on("data", (chunk) => {
      bytes += chunk.length;
      if (bytes > MOST_BYTES) resolve();
    });
    for (const event of ["end", "close", "error"]) incoming.once(event, () => resolve());
    incoming.resume();
  });
}
