"""The rpc of SignInsService: other parts ask whether a token's sign-in still stands."""

from typing import Any

from concerto.sessions.v1 import sign_ins_pb2, sign_ins_pb2_grpc
from grpc.aio import ServicerContext

from servicekit.rpc.identity import Verifier


class SignInsServicer(sign_ins_pb2_grpc.SignInsServiceServicer):
    """Answers by what this process's verifier knows, which also asks the database for the other services here."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    async def CheckSignIn(
        self, request: sign_ins_pb2.CheckSignInRequest, _: ServicerContext[Any, Any]
    ) -> sign_ins_pb2.CheckSignInResponse:
        """See the contract."""
        await self._verifier.confirm(request.access_token)
        return sign_ins_pb2.CheckSignInResponse()
