"""What `concerto doctor` has found, and how it is told."""

from collections.abc import Iterable
from dataclasses import dataclass

from local.console import Console


@dataclass(frozen=True)
class Finding:
    """The result of one check. `advice` is empty when all is well; `hint` is worth knowing and nothing is wrong."""

    subject: str
    detail: str
    advice: str = ""
    hint: str = ""


def show(findings: Iterable[Finding], console: Console) -> int:
    """Print every finding; 1 when something is wrong, otherwise 0."""
    findings = list(findings)
    wrong = [finding for finding in findings if finding.advice]
    for finding in findings:
        console.line(f"  {'!!' if finding.advice else 'ok'}  {finding.subject}: {finding.detail}")
        if finding.advice:
            console.problem(f"      {finding.advice}")
        if finding.hint:
            console.line(f"      {finding.hint}")
    console.line()
    console.line(f"{len(wrong)} of {len(findings)} checks need attention." if wrong else "Everything is in order.")
    return 1 if wrong else 0
