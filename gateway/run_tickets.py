"""The route by which a caller gets a ticket for following one of their runs, and what the document says of it."""

from collections.abc import Iterable
from typing import Any

import orjson
from concerto.orchestrator.v1 import orchestrator_pb2
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.rest import tickets
from gateway.rest.bridge import Bridge
from gateway.rest.contract import Binding
from gateway.rest.openapi import Writer, as_json
from gateway.rest.routes import route
from servicekit.messages import validation
from servicekit.rpc import channel, identity

PATH = "/runs/{run_id}/ticket"
MAX_BODY_BYTES = 1024


def ticket_route(bridge: Bridge, bindings: Iterable[Binding]) -> Route:
    """Return the route, made from the contract's GetRun: somebody else's run is not found, and gets no ticket."""
    by_operation = {binding.operation_id: binding for binding in bindings}
    stream_path = by_operation["StreamRun"].path
    call = bridge.stub(by_operation["GetRun"])

    async def create(request: Request) -> Response:
        await bridge.sign_in(request)
        await bridge.read_content(request, max_bytes=MAX_BODY_BYTES)
        message = orchestrator_pb2.GetRunRequest(run_id=request.path_params["run_id"])
        validation.check(message)
        await channel.call(call, message)
        ticket = bridge.tickets.make(stream_path.format_map(request.path_params), identity.current_caller().token)
        content = {tickets.PARAMETER: ticket.text, "expires_at": ticket.expires_at}
        body = orjson.dumps(content, option=orjson.OPT_UTC_Z)
        headers = {"cache-control": "no-store"}
        return Response(body, status_code=201, media_type="application/json", headers=headers)

    return route(PATH, create, "POST")


def add_to(writer: Writer) -> None:
    """Add the route to the document."""
    of_run = writer.paths["/runs/{run_id}"]["get"]
    ticket = writer.schemas.add(
        "RunTicket",
        {
            "type": "object",
            "properties": {
                tickets.PARAMETER: {"type": "string", "description": "The parameter `ticket` of the stream."},
                "expires_at": {"type": "string", "format": "date-time", "description": "Its end."},
            },
            "required": [tickets.PARAMETER, "expires_at"],
            "description": "Lets whoever has it follow this one run, as its owner may.",
        },
    )
    failures = {status: answer for status, answer in of_run["responses"].items() if not status.startswith("2")}
    operation: dict[str, Any] = {
        "operationId": "CreateRunTicket",
        "summary": "Returns a ticket for following a run without a header",
        "description": "A browser's EventSource sends no header, so its address holds a ticket: "
        "`/runs/{run_id}/events?ticket=…`. Streams of this run may begin with it for a minute, while the "
        "sign-in lasts.",
        "tags": ["gateway"],
        "parameters": of_run["parameters"],
        "responses": {"201": {"description": "The ticket.", "content": as_json(ticket)}, **failures},
    }
    writer.add_signed_in(PATH, operation, verb="post")
