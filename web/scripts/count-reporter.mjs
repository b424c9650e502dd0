// Ends a run of vitest with one plain line that people and scripts can read.

const WORDS = { passed: "passed", failed: "failed", skipped: "skipped", pending: "not finished" };

export default class CountReporter {
  onTestRunEnd(modules, unhandledErrors) {
    const counts = { passed: 0, failed: 0, skipped: 0, pending: 0 };
    let broken = unhandledErrors.length;
    for (const module of modules) {
      broken += module.errors().length;
      for (const test of module.children.allTests()) counts[test.result().state] += 1;
    }
    const shown = Object.entries(WORDS)
      .filter(([state]) => state === "passed" || state === "failed" || counts[state] > 0)
      .map(([state, word]) => `${counts[state]} ${word}`);
    if (broken > 0) shown.push(`${broken} errors outside of tests`);
    process.stdout.write(`vitest: ${shown.join(", ")}\n`);
  }
}
