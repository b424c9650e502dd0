"""The files of `supabase/schemas` in the order in which they can be applied."""

import tomllib
from pathlib import Path

from local.migrations.supabase_cli import MigrationError


def schema_files(project: Path) -> list[Path]:
    """What `schema_paths` in `project`/supabase/config.toml names: each pattern's files by name, each file once.

    Raises MigrationError when a pattern names nothing or a file of the folder is named by none.
    """
    folder = project / "supabase"
    settings = tomllib.loads((folder / "config.toml").read_text())
    found: dict[Path, None] = {}
    for pattern in settings["db"]["migrations"]["schema_paths"]:
        named = sorted(folder.glob(pattern.removeprefix("./")))
        if not named:
            raise MigrationError(f"schema_paths in supabase/config.toml names {pattern}, which is no file.")
        found |= dict.fromkeys(named)
    left_out = sorted(set((folder / "schemas").rglob("*.sql")) - found.keys())
    if left_out:
        raise MigrationError(f"schema_paths in supabase/config.toml leaves out {left_out[0].relative_to(project)}.")
    return list(found)
