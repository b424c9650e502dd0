// What each client's program for Node says of its features.
//
//   await feature("chat", async () => { … });   // throws when the feature does not work

/** What the program is told: CONCERTO_URL, CONCERTO_TOKEN and the others that `settings_of` names. */
export const settings = process.env;

/** Try a feature, print a line for it, and let the program end with 1 when it fails. */
export async function feature(name, work) {
  let failure = null;
  try {
    await work();
  } catch (error) {
    failure = error instanceof Error ? (error.stack ?? error.message) : String(error);
    process.exitCode = 1;
  }
  console.log(JSON.stringify({ feature: name, failure }));
}
