"""Makes functions from source text: straight lines for one message type cost a third of loops over its fields."""

from collections.abc import Iterable, Mapping
from keyword import iskeyword
from typing import Any

from google.protobuf.descriptor import Descriptor


def make_function(
    descriptor: Descriptor, purpose: str, parameters: Iterable[str], body: Iterable[str], names: Mapping[str, Any]
) -> Any:
    """Return a function made for one message type.

    purpose: its name. body: the lines of its body. names: what the lines refer to, as locals of the function.
    The lines come from the contract's descriptors and never from what somebody has sent.
    """
    bound = ", ".join((*parameters, "*", *(f"{name}={name}" for name in names))) if names else ", ".join(parameters)
    source = "\n    ".join((f"def {purpose}({bound}):", *body))
    scope: dict[str, Any] = dict(names)
    code = compile(source, f"<{purpose} {descriptor.full_name}>", "exec")
    exec(code, scope)  # noqa: S102 (the text is made of the contract's own names)
    return scope[purpose]


def attribute(message: str, name: str) -> str:
    """Return the expression for a field's value; a few fields have the name of a Python keyword."""
    return f"getattr({message}, {name!r})" if iskeyword(name) else f"{message}.{name}"


def assignment(message: str, name: str, value: str) -> str:
    """Return the statement that sets a scalar field."""
    return f"setattr({message}, {name!r}, {value})" if iskeyword(name) else f"{message}.{name} = {value}"
