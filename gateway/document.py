"""The gateway's OpenAPI document: the contract's routes, and those that are written by hand.

`python -m gateway.document [file]` writes it without starting anything.
"""

import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from gateway import run_tickets
from gateway.openai import schemas as openai_schemas
from gateway.rest import comments, contract, openapi
from gateway.rest.contract import SERVICES, Binding
from gateway.web import schemas as web_schemas


def version() -> str:
    """Return the version of the installed distribution; `0` when it is not installed."""
    try:
        return metadata.version("concerto")
    except metadata.PackageNotFoundError:
        return "0"


def document(bindings: Iterable[Binding]) -> dict[str, Any]:
    """Return the document for the contract's routes."""
    return openapi.document(
        bindings,
        comments.load(),
        version=version(),
        about="Sign-in, chat sessions and model answers.",
        by_hand={
            "StartSocialLogIn": web_schemas.start_social_log_in,
            "CompleteSocialLogIn": web_schemas.complete_social_log_in,
            "StreamChatCompletion": lambda writer, _: openai_schemas.chat_completion(writer.schemas),
        },
        further=(web_schemas.add_config, run_tickets.add_to, _add_openai),
    )


def _add_openai(writer: openapi.Writer) -> None:
    writer.add_signed_in("/v1/completions", openai_schemas.text_completion(writer.schemas), verb="post")
    for path, operation in openai_schemas.models(writer.schemas).items():
        writer.add_signed_in(path, operation)


def main() -> None:
    """Write the document into the file that is named, or print it."""
    text = orjson.dumps(document(contract.bindings(SERVICES)), option=orjson.OPT_INDENT_2).decode() + "\n"
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
