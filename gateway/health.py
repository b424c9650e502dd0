"""Whether the gateway runs, whether it can verify tokens, and whether the services behind it can do their work."""

import asyncio
from collections.abc import Mapping

import grpc
import orjson
from grpc_health.v1 import health_pb2, health_pb2_grpc
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.rest.contract import SERVICES, short_name
from gateway.rest.routes import route
from servicekit.errors import AppError
from servicekit.rpc.identity import Verifier

TIMEOUT_SECONDS = 2.0
# Calls go round, so that one replica is not ready says little; the next time another one is asked.
MOST_ASKED = 3
_SERVING = health_pb2.HealthCheckResponse.SERVING


class Health:
    """`/healthz` and `/readyz`.

    channels: one per service, by the service's full name. verifier: of the gateway's callers.
    """

    def __init__(self, channels: Mapping[str, grpc.aio.Channel], verifier: Verifier) -> None:
        self._verifier = verifier
        self._stubs = {name: health_pb2_grpc.HealthStub(connection) for name, connection in channels.items()}
        self._is_leaving = False
        self._asking: asyncio.Task[dict[str, str]] | None = None

    def leave(self) -> None:
        """Say from now on that the gateway is not ready, as it is to stop."""
        self._is_leaving = True

    def routes(self) -> list[Route]:
        """Return the two routes."""
        return [route("/healthz", self._healthz, "GET", "HEAD"), route("/readyz", self._readyz, "GET", "HEAD")]

    async def states(self) -> dict[str, str]:
        """Return `serving`, `not_serving` or `unreachable` by the service's short name.

        Of several services of one part, the first that does not serve speaks for it. Who asks while others wait gets
        their answer, so that many who ask cost no more than one.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_all())
        return await asyncio.shield(self._asking)

    async def _ask_all(self) -> dict[str, str]:
        states = await asyncio.gather(*(self._state(service.full_name) for service in SERVICES))
        found: dict[str, str] = {}
        for service, state in zip(SERVICES, states, strict=True):
            name = short_name(service)
            found[name] = state if found.get(name, "serving") == "serving" else found[name]
        return found

    async def _healthz(self, _: Request) -> Response:
        return _answer(200, {"status": "serving"})

    async def _readyz(self, _: Request) -> Response:
        services, keys = await asyncio.gather(self.states(), self._keys_state())
        is_ready = not self._is_leaving and all(state == "serving" for state in (keys, *services.values()))
        status = "serving" if is_ready else "not_serving"
        return _answer(200 if is_ready else 503, {"status": status, "keys": keys, "services": services})

    async def _keys_state(self) -> str:
        """Return `serving` once the keys that tokens are verified with were there; before, no token is good."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await self._verifier.ready()
        except (AppError, TimeoutError):
            return "unreachable"
        return "serving"

    async def _state(self, full_name: str) -> str:
        state = "not_serving"
        for _ in range(MOST_ASKED):
            state = await self._ask(full_name)
            if state != "not_serving":
                break
        return state

    async def _ask(self, full_name: str) -> str:
        request = health_pb2.HealthCheckRequest(service=full_name)
        try:
            answer = await self._stubs[full_name].Check(request, timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            # It answers NOT_FOUND until its first look at what it needs.
            return "not_serving" if error.code() == grpc.StatusCode.NOT_FOUND else "unreachable"
        return "serving" if answer.status == _SERVING else "not_serving"


def _answer(status: int, content: Mapping[str, object]) -> Response:
    return Response(
        orjson.dumps(content),
        status_code=status,
        media_type="application/json",
        headers={"cache-control": "no-store"},
    )
