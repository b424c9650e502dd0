"""How the help of `concerto` reads: an option that takes no value shows none."""

from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command whose help shows types of values alone."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters, as typer does."""
        return without_flag_types(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands whose help shows types of values alone."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters, as typer does."""
        return without_flag_types(super().get_params(ctx))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of that name, whose help reads in the same way."""
        command = super().get_command(ctx, cmd_name)
        if type(command) is TyperCommand:
            command.__class__ = Command
        elif type(command) is TyperGroup:
            command.__class__ = Group
        return command


def without_flag_types(parameters: list[Any]) -> list[Any]:
    """Return the parameters; flags, which typer describes as `<bool>`, without a value."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters
