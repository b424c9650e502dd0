"""What the OpenAPI document says of the web app's configuration and of sign-in with a provider."""

from typing import Any

from gateway.rest.contract import Binding
from gateway.rest.openapi import Writer
from gateway.rest.schemas import Schema


def add_config(writer: Writer) -> None:
    """Add GET /config.json."""
    text = {"type": "string"}
    config = {
        "type": "object",
        "properties": {
            "supabase_url": text,
            "supabase_publishable_key": {"type": ["string", "null"]},
            "providers": {"type": "array", "items": {"$ref": "#/components/schemas/SocialProvider"}},
            "version": text,
        },
        "required": ["supabase_url", "supabase_publishable_key", "providers", "version"],
    }
    writer.add_plain(
        "/config.json", "GetConfig", "Returns what the web app is configured with.", {"200": ("It.", config)}
    )


def start_social_log_in(writer: Writer, binding: Binding) -> dict[str, Any]:
    """Return parameters and answers of the redirect to a provider."""
    provider = binding.method.input_type.fields_by_name["provider"]
    parameters = [
        _query("provider", writer.schemas.parameter(provider), "The provider.", required=True),
        _query(
            "redirect_to",
            {"type": "string", "maxLength": 1024},
            "Path of this application where the browser goes afterwards; `/` when absent.",
        ),
    ]
    headers = {"Location": {"schema": {"type": "string"}}}
    moved = {"description": "Sends the browser to the provider.", "headers": headers}
    return {"parameters": parameters, "responses": {"302": moved, **writer.failures(binding)}}


def complete_social_log_in(writer: Writer, binding: Binding) -> dict[str, Any]:
    """Return parameters and answers of the way back from a provider."""
    parameters = [
        _query("code", {"type": "string"}, "The provider's code; works once."),
        _query("st", {"type": "string"}, "What the sign-in was begun with."),
        _query("error", {"type": "string"}, "Set when the sign-in failed at the provider."),
        _query("error_code", {"type": "string"}, "Says more about the error."),
        _query("error_description", {"type": "string"}, "Says more about the error."),
    ]
    headers = {"Location": {"schema": {"type": "string"}}}
    moved = {
        "description": "Sends the browser to `redirect_to`, with the tokens in the address's fragment.",
        "headers": headers,
    }
    answers = {"200": writer.success(binding), "303": moved, **writer.failures(binding)}
    return {"parameters": parameters, "responses": answers}


def _query(name: str, schema: Schema, description: str, *, required: bool = False) -> Schema:
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}
