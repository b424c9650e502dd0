"""The migration into which all earlier ones were folded: which those are. Needs the standard library only."""

from collections.abc import Collection

from local.migrations.supabase_cli import MigrationError

BASELINE = "20261128180000"
"""The version of the baseline; nothing in `supabase/migrations` is older."""
FOLDED = (
    *("20261120090000", "20261120090100", "20261120090200", "20261120100000", "20261120100100", "20261120100200"),
    *("20261120100300", "20261120100400", "20261120110000", "20261120110010", "20261120110020", "20261120110100"),
    *("20261120110200", "20261120110300", "20261120110400", "20261120120000"),
)
"""The versions that the baseline holds. A database that has them all is in the baseline's state."""


def folded_of(applied: Collection[str]) -> tuple[str, ...]:
    """The versions in a database's history that the baseline stands for; empty where there is nothing to take over.

    Raises MigrationError when some of them are missing there, so that the database is not in the baseline's state.
    """
    found = tuple(version for version in FOLDED if version in applied)
    missing = [version for version in FOLDED if version not in applied]
    # With the baseline noted beside them, an earlier take-over was cut off half-way.
    if found and missing and BASELINE not in applied:
        raise MigrationError(
            f"The database has only {len(found)} of the {len(FOLDED)} migrations that the baseline {BASELINE} stands "
            f"for; the first that it lacks is {missing[0]}. Apply them with the last version of Concerto that has them "
            "(docs/migrations.md, Before the baseline), then come back to this one."
        )
    return found


def as_of_baseline(applied: Collection[str]) -> set[str]:
    """The history as it is after the take-over. Raises MigrationError where that is not possible."""
    found = folded_of(applied)
    return set(applied) - set(found) | ({BASELINE} if found else set())
