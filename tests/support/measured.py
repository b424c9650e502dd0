"""What tests have measured: it travels with their reports, as prints of other processes do not."""

from collections.abc import Callable, Iterable
from typing import Any

MEASURED = "measured"
"""The property of a test's report that holds one line."""

Note = Callable[[str], None]
"""The fixture `note`: prints one line when all tests are done."""


def lines_of(reports: Iterable[Any]) -> list[str]:
    """Return what the tests of these reports have noted, in their order."""
    calls = (report for report in reports if getattr(report, "when", "") == "call")
    return [str(value) for report in calls for name, value in report.user_properties if name == MEASURED]
