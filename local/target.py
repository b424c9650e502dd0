"""Which Supabase a command is for, as its option `--target` says."""

from enum import StrEnum
from typing import Annotated

import typer


class TargetName(StrEnum):
    """Which Supabase a command is for."""

    EMBEDDED = "embedded"
    HOSTED = "hosted"


TargetOption = Annotated[
    TargetName, typer.Option("--target", help="The embedded Supabase of this folder, or a hosted project.")
]
