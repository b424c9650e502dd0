"""The sessions service in memory, as faithful as the orchestrator can tell, behind a real socket."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import grpc
from concerto.sessions.v1 import runs_pb2_grpc, sessions_pb2, sessions_pb2_grpc
from pydantic import SecretStr

from servicekit.errors import AppError
from servicekit.messages import paging
from servicekit.rpc import identity, server
from servicekit.testing import JWT_SECRET, SERVICE_KEY, ServedSettings
from services.orchestrator.tests.fake_runs import RUNS_SERVICE, FakeRuns, now

SERVICE = sessions_pb2.DESCRIPTOR.services_by_name["SessionsService"]
Context = grpc.aio.ServicerContext[Any, Any]


class FakeSessions(sessions_pb2_grpc.SessionsServiceServicer):
    """Sessions and messages in dictionaries; `calls` counts, `hold` and `refuse` misbehave per rpc."""

    def __init__(self) -> None:
        self.sessions: dict[str, sessions_pb2.Session] = {}
        self.messages: dict[str, list[sessions_pb2.Message]] = {}
        self.calls: Counter[str] = Counter()
        self.hold: dict[str, asyncio.Event] = {}
        self.refuse: dict[str, str] = {}
        self.runs = FakeRuns(self)
        self._answers: dict[tuple[str, str], tuple[bytes, sessions_pb2.AppendMessagesResponse]] = {}

    def add_session(self, user_id: str, *, name: str = "") -> str:
        session_id = str(uuid4())
        self.sessions[session_id] = sessions_pb2.Session(id=session_id, user_id=user_id, name=name)
        self.messages[session_id] = []
        return session_id

    def fill(self, session_id: str, contents: list[str]) -> None:
        roles = (sessions_pb2.ROLE_USER, sessions_pb2.ROLE_ASSISTANT)
        for index, content in enumerate(contents):
            self.add(session_id, sessions_pb2.NewMessage(role=roles[index % 2], content=content))

    def add(
        self, session_id: str, new: sessions_pb2.NewMessage, *, parent_id: str | None = None
    ) -> sessions_pb2.Message:
        stored = self.messages[session_id]
        active = next((one for one in reversed(stored) if one.is_active), None)
        message = sessions_pb2.Message(
            id=str(uuid4()),
            session_id=session_id,
            role=new.role,
            content=new.content,
            timestamp=now(),
            order=len(stored) + 1,
            metadata=new.metadata if new.HasField("metadata") else None,
            parent_id=(active.id if active else "") if parent_id is None else parent_id,
            is_active=True,
            reasoning=new.reasoning,
            reasoning_milliseconds=new.reasoning_milliseconds,
        )
        stored.append(message)
        self.sessions[session_id].message_count = len(stored)
        return message

    async def _enter(self, rpc: str, session_id: str) -> sessions_pb2.Session:
        self.calls[rpc] += 1
        if rpc in self.hold:
            await self.hold[rpc].wait()
        if rpc in self.refuse:
            raise AppError(self.refuse[rpc])
        session = self.sessions.get(session_id)
        if session is None or session.user_id != identity.current_caller().user_id:
            raise AppError("SESSION_NOT_FOUND", metadata={"session_id": session_id})
        return session

    async def GetSession(
        self, request: sessions_pb2.GetSessionRequest, context: Context
    ) -> sessions_pb2.GetSessionResponse:
        return sessions_pb2.GetSessionResponse(session=await self._enter("GetSession", request.session_id))

    async def UpdateSession(
        self, request: sessions_pb2.UpdateSessionRequest, context: Context
    ) -> sessions_pb2.UpdateSessionResponse:
        session = await self._enter("UpdateSession", request.session_id)
        if request.HasField("expected_name") and request.expected_name != session.name:
            raise AppError("SESSION_NAME_CHANGED", metadata={"session_id": session.id})
        if request.HasField("name"):
            session.name = request.name
        return sessions_pb2.UpdateSessionResponse(session=session)

    async def AppendMessages(
        self, request: sessions_pb2.AppendMessagesRequest, context: Context
    ) -> sessions_pb2.AppendMessagesResponse:
        await self._enter("AppendMessages", request.session_id)
        key = (request.session_id, request.request_id.lower())
        content = b"".join(message.SerializeToString(deterministic=True) for message in request.messages)
        if request.request_id and key in self._answers:
            known, answer = self._answers[key]
            if known != content:
                raise AppError("REQUEST_ID_REUSED", metadata={"request_id": request.request_id})
            return answer
        stored = [self.add(request.session_id, message) for message in request.messages]
        answer = sessions_pb2.AppendMessagesResponse(messages=stored)
        if not request.include_contents:
            for message in answer.messages:
                message.ClearField("content")
                message.ClearField("metadata")
                message.ClearField("reasoning")
        self._answers[key] = (content, answer)
        return answer

    async def ListMessages(
        self, request: sessions_pb2.ListMessagesRequest, context: Context
    ) -> sessions_pb2.ListMessagesResponse:
        await self._enter("ListMessages", request.session_id)
        size = min(request.page_size or 50, 100)
        after, before = request.after_order, request.before_order or 2**31
        if request.page_token:
            (index,) = paging.decode(request.page_token, (int,))
            after, before = (after, index) if request.from_end else (index, before)
        found = [
            one
            for one in self.messages[request.session_id]
            if after < one.order < before and (one.is_active or request.include_inactive)
        ]
        page = found[-size:] if request.from_end else found[:size]
        token = ""
        if len(found) > len(page):
            token = paging.encode(page[0].order if request.from_end else page[-1].order)
        return sessions_pb2.ListMessagesResponse(messages=page, next_page_token=token)

    async def SearchMessages(
        self, request: sessions_pb2.SearchMessagesRequest, context: Context
    ) -> sessions_pb2.SearchMessagesResponse:
        """Newest first; the real one ranks."""
        self.calls["SearchMessages"] += 1
        if "SearchMessages" in self.refuse:
            raise AppError(self.refuse["SearchMessages"])
        words = request.query.lower().split()
        own = [one for one in self.sessions.values() if one.user_id == identity.current_caller().user_id]
        hits = [
            sessions_pb2.MessageHit(
                message_id=message.id,
                session_id=session.id,
                session_name=session.name,
                role=message.role,
                order=message.order,
                timestamp=message.timestamp,
                excerpt=message.content[:200],
            )
            for session in own
            if request.session_id in ("", session.id)
            for message in reversed(self.messages[session.id])
            if all(word in message.content.lower() for word in words)
        ]
        (start,) = paging.decode(request.page_token, (int,)) if request.page_token else (0,)
        end = start + min(request.page_size or 20, 50)
        token = paging.encode(end) if end < len(hits) else ""
        return sessions_pb2.SearchMessagesResponse(hits=hits[start:end], next_page_token=token)


class SessionsProcess:
    """Serves a FakeSessions on one port that stays its own; can be stopped and started again."""

    def __init__(self, fake: FakeSessions) -> None:
        self.fake = fake
        self.port = 0
        self._stack = contextlib.AsyncExitStack()

    async def start(self) -> None:
        settings = ServedSettings(
            _env_file=None,
            service_key=SERVICE_KEY,
            port=self.port,
            drain_seconds=0.0,
            supabase_jwt_secret=SecretStr(JWT_SECRET),
            supabase_url="http://127.0.0.1:9",
        )
        registrations = [
            server.Registration(
                service=SERVICE, add=sessions_pb2_grpc.add_SessionsServiceServicer_to_server, servicer=self.fake
            ),
            server.Registration(
                service=RUNS_SERVICE, add=runs_pb2_grpc.add_RunsServiceServicer_to_server, servicer=self.fake.runs
            ),
        ]
        self.port = await self._stack.enter_async_context(server.serving(settings, registrations))

    async def stop(self) -> None:
        await self._stack.aclose()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def sessions_running() -> AsyncIterator[SessionsProcess]:
    process = SessionsProcess(FakeSessions())
    await process.start()
    try:
        yield process
    finally:
        await process.stop()
