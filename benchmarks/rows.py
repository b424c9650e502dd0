"""What the benchmarks find: one row per figure, the table of all rows, and results/latest.json."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

Head = Mapping[str, Any]
"""Under which circumstances the rows were measured: versions, cores, commit, date, and so on."""


class MeasurementError(Exception):
    """A measurement cannot be trusted: requests failed, tokens were lost, or its programs did not start.

    A missed target is none: it is a row that says `no`.
    """


@dataclass(frozen=True)
class Row:
    """One figure beside what it is compared with."""

    name: str
    mode: str
    """`processes`, `one-process`, or empty where the figure does not depend on it."""
    value: float
    """Ours: the median of the rounds."""
    unit: str
    reference: float | None = None
    """The same of what it is compared with; None for a limit that stands alone."""
    ratio: float | None = None
    """value / reference; for a difference, value - reference in the same unit."""
    target: str = ""
    """What is promised, as the table shows it; empty for a figure that is only told."""
    met: bool | None = None
    """None without a target."""
    beside: str = ""
    """What the reference is."""
    note: str = ""
    """What has to be known to read the figure; stands under the table."""
    generator_share: float | None = None
    """How much of a core the load generator took; None where there was none."""
    values: tuple[float, ...] = ()
    """Ours, one per round."""
    references: tuple[float, ...] = ()
    """The reference's, one per round."""

    @property
    def spread(self) -> float:
        """How far the rounds lie apart on the side where they do so more: (greatest - least) / median."""
        return max(_spread(self.values), _spread(self.references))

    @classmethod
    def compared(
        cls,
        name: str,
        mode: str,
        values: Sequence[float],
        references: Sequence[float],
        *,
        unit: str,
        beside: str,
        at_least: float | None = None,
        at_most: float | None = None,
        note: str = "",
        generator_share: float | None = None,
    ) -> "Row":
        """Return a row whose target is a ratio to the reference; the rounds alternate, one value of each per round.

        Without `at_least` and `at_most` the row only tells. Raises MeasurementError for a reference of zero.
        """
        value, reference = statistics.median(values), statistics.median(references)
        if not reference:
            raise MeasurementError(f"{name}: the reference measured nothing.")
        row = cls(
            name, mode, value, unit, reference, value / reference,
            beside=beside, note=note, generator_share=generator_share,
            values=tuple(values), references=tuple(references),
        )  # fmt: skip
        return row._with_target(row.ratio, "×", at_least, at_most)

    @classmethod
    def difference(
        cls,
        name: str,
        mode: str,
        values: Sequence[float],
        references: Sequence[float],
        *,
        unit: str,
        beside: str,
        at_most: float | None = None,
        note: str = "",
    ) -> "Row":
        """Return a row whose target is how much more than the reference it may be, in `unit`."""
        value, reference = statistics.median(values), statistics.median(references)
        row = cls(
            name, mode, value, unit, reference, value - reference,
            beside=beside, note=note, values=tuple(values), references=tuple(references),
        )  # fmt: skip
        return row._with_target(row.ratio, unit, None, at_most, sign="+")

    @classmethod
    def absolute(
        cls,
        name: str,
        mode: str,
        values: Sequence[float],
        *,
        unit: str,
        at_least: float | None = None,
        at_most: float | None = None,
        reference: float | None = None,
        beside: str = "",
        note: str = "",
    ) -> "Row":
        """Return a row whose target is a limit in `unit`; a reference stands beside it and does not judge."""
        value = statistics.median(values)
        ratio = value / reference if reference else None
        row = cls(name, mode, value, unit, reference, ratio, beside=beside, note=note, values=tuple(values))
        return row._with_target(value, unit, at_least, at_most)

    def _with_target(
        self, figure: float | None, unit: str, at_least: float | None, at_most: float | None, *, sign: str = ""
    ) -> "Row":
        if figure is None or (at_least is None and at_most is None):
            return self
        if at_least is not None:
            return replace(self, target=f"≥ {sign}{_plain(at_least)} {unit}", met=figure >= at_least)
        assert at_most is not None
        return replace(self, target=f"≤ {sign}{_plain(at_most)} {unit}", met=figure <= at_most)


HEADINGS = ("measured", "mode", "Concerto", "reference", "unit", "ratio", "target", "met", "spread", "beside")
_TEXT = frozenset({"measured", "mode", "unit", "beside"})


def cells(row: Row) -> tuple[str, ...]:
    """Return a row as the table shows it, in the order of HEADINGS."""
    is_difference = row.ratio is not None and row.target.startswith("≤ +")
    ratio = "" if row.ratio is None else f"{row.ratio:+.1f} {row.unit}" if is_difference else f"{row.ratio:.3f}"
    met = "" if row.met is None else "yes" if row.met else "no"
    spread = f"{row.spread:.0%}" if len(row.values) > 1 else ""
    return (
        *(row.name, row.mode, number(row.value), number(row.reference), row.unit),
        *(ratio, row.target, met, spread, row.beside),
    )


def number(value: float | None) -> str:
    """Return a figure with about three digits that matter; empty for None."""
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def table(rows: Iterable[Row]) -> str:
    """Return all rows as text with aligned columns."""
    lines = [HEADINGS, *map(cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    shown = []
    for line in lines:
        aligned = [
            cell.ljust(width) if heading in _TEXT else cell.rjust(width)
            for heading, cell, width in zip(HEADINGS, line, widths, strict=True)
        ]
        shown.append("  ".join(aligned).rstrip())
    shown.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(shown)


def markdown(rows: Iterable[Row]) -> str:
    """Return all rows as a table of Markdown."""
    sides = tuple("---" if heading in _TEXT else "---:" for heading in HEADINGS)
    lines = [HEADINGS, sides, *map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def footnotes(rows: Sequence[Row]) -> list[str]:
    """Return the sentences under the table: the rows' notes, each once, and what the load generator took."""
    lines = list(dict.fromkeys(f"{row.name}, {row.mode}: {row.note}" for row in rows if row.note))
    shares = [row.generator_share for row in rows if row.generator_share is not None]
    if shares:
        lines.append(
            f"Load generator: {min(shares):.0%} to {max(shares):.0%} of a core, on the cores that are measured."
        )
    return lines


def document(head: Head, rows: Sequence[Row]) -> dict[str, Any]:
    """Return what latest.json holds: the head's fields, and `rows`."""
    return {**head, "rows": [{**asdict(row), "spread": row.spread} for row in rows]}


def write_json(path: Path, head: Head, rows: Sequence[Row]) -> None:
    """Write latest.json; its folder is made when there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document(head, rows), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _spread(values: Sequence[float]) -> float:
    middle = statistics.median(values) if values else 0.0
    return (max(values) - min(values)) / middle if middle else 0.0


def _plain(value: float) -> str:
    return f"{value:.2f}" if value < 10 and value != int(value) else f"{value:g}"
