import httpx
from concerto.auth.v1 import auth_pb2
from concerto.sessions.v1 import sessions_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.tests.fakes import RUN_ID, SESSION_ID, Neighbours, error_of, gateway, signed_in
from servicekit.errors import AppError
from servicekit.testing import mint_token

Header = dict[str, str]
SESSION = sessions_pb2.Session(
    id=SESSION_ID, user_id=RUN_ID, name="Tea", message_count=3, created_at=Timestamp(seconds=1_700_000_000)
)


async def test_a_created_resource_comes_back_bare_with_201(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    neighbours.answers["CreateSession"] = sessions_pb2.CreateSessionResponse(session=SESSION)
    response = await client.post("/sessions", json={"name": "Tea"}, headers=bearer)
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    assert response.json() == {
        "id": SESSION_ID,
        "user_id": RUN_ID,
        "name": "Tea",
        "is_archived": False,
        "message_count": 3,
        "created_at": "2023-11-14T22:13:20Z",
        "updated_at": None,
    }
    assert neighbours.last[1].name == "Tea"


async def test_an_answer_without_fields_is_204(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    response = await client.delete(f"/sessions/{SESSION_ID}", headers=bearer)
    assert (response.status_code, response.content) == (204, b"")
    assert neighbours.last[1].session_id == SESSION_ID


async def test_a_list_keeps_its_page_token(client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header) -> None:
    neighbours.answers["ListSessions"] = sessions_pb2.ListSessionsResponse(sessions=[SESSION], next_page_token="next")
    response = await client.get(
        "/sessions", params={"page_size": "2", "is_archived": "true", "query": "té & more"}, headers=bearer
    )
    assert response.status_code == 200
    assert response.json()["next_page_token"] == "next"
    asked = neighbours.last[1]
    assert (asked.page_size, asked.is_archived, asked.query) == (2, True, "té & more")


async def test_path_and_body_make_one_message(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    body = {"messages": [{"role": "user", "content": "Hi", "metadata": {"n": 1}}, {"role": "tool"}]}
    response = await client.post(f"/sessions/{SESSION_ID}/messages", json=body, headers=bearer)
    assert response.status_code == 201
    asked = neighbours.last[1]
    assert asked.session_id == SESSION_ID
    assert [message.role for message in asked.messages] == [sessions_pb2.ROLE_USER, sessions_pb2.ROLE_TOOL]


async def test_an_absent_field_differs_from_an_empty_one(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    await client.patch(f"/sessions/{SESSION_ID}", json={"is_archived": False}, headers=bearer)
    asked = neighbours.last[1]
    assert asked.HasField("is_archived")
    assert not asked.HasField("name")


async def test_enums_travel_in_the_contracts_spelling(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    user = auth_pb2.User(role=auth_pb2.USER_ROLE_ADMIN, settings=auth_pb2.UserSettings(theme=auth_pb2.THEME_DARK))
    neighbours.answers["UpdateMe"] = auth_pb2.UpdateMeResponse(user=user)
    response = await client.patch("/auth/me", json={"settings": {"theme": "light"}}, headers=bearer)
    assert neighbours.last[1].settings.theme == auth_pb2.THEME_LIGHT
    assert (response.json()["role"], response.json()["settings"]["theme"]) == ("admin", "dark")


async def test_a_sign_in_that_waits_for_confirmation_has_a_null_session(
    client: httpx.AsyncClient, neighbours: Neighbours
) -> None:
    neighbours.answers["SignUp"] = auth_pb2.SignUpResponse(user=signed_in()["user"])
    response = await client.post("/auth/signup", json={"email": "ada@example.com", "password": "pw-for-tests"})
    assert response.status_code == 201
    assert response.json()["session"] is None


async def test_a_sign_in_answers_user_and_session(client: httpx.AsyncClient, neighbours: Neighbours) -> None:
    neighbours.answers["LogIn"] = auth_pb2.LogInResponse(**signed_in())
    response = await client.post("/auth/login", json={"email": "ada@example.com", "password": "pw-for-tests"})
    assert response.json()["session"] == {
        "access_token": "at",
        "refresh_token": "rt",
        "token_type": "bearer",
        "expires_in": 3600,
        "expires_at": 1_900_000_000,
    }


async def test_a_body_may_be_absent_when_nothing_in_it_is_required(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    assert (await client.post("/auth/logout", headers=bearer)).status_code == 204
    assert (await client.post("/sessions", headers=bearer)).status_code == 201


async def test_the_callers_token_and_request_id_are_forwarded(
    client: httpx.AsyncClient, neighbours: Neighbours
) -> None:
    token = mint_token()
    headers = {"authorization": f"Bearer {token}", "x-request-id": "walk-1"}
    assert (await client.get("/auth/me", headers=headers)).status_code == 200
    metadata = neighbours.last[2]
    assert metadata["authorization"] == f"Bearer {token}"
    assert metadata["x-request-id"] == "walk-1"


async def test_an_anonymous_rpc_is_called_without_anybodys_token(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    # The request before must leave nothing behind.
    await client.get("/auth/me", headers=bearer)
    await client.post("/auth/refresh", json={"refresh_token": "rt"}, headers={"authorization": "Bearer nonsense"})
    assert neighbours.last[0] == "RefreshSession"
    assert "authorization" not in neighbours.last[2]


async def test_a_neighbours_reason_and_wait_come_through(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    neighbours.answers["GetSession"] = AppError("SESSION_NOT_FOUND", metadata={"session_id": SESSION_ID})
    response = await client.get(f"/sessions/{SESSION_ID}", headers=bearer)
    assert error_of(response) == (404, "SESSION_NOT_FOUND", {"session_id": SESSION_ID})
    neighbours.answers["GetSession"] = AppError("AUTH_RATE_LIMITED", retry_after_seconds=7)
    response = await client.get(f"/sessions/{SESSION_ID}", headers=bearer)
    assert error_of(response)[:2] == (429, "AUTH_RATE_LIMITED")
    assert response.headers["retry-after"] == "7"


async def test_every_429_says_how_long_to_wait(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    neighbours.answers["GetMe"] = AppError("AUTH_RATE_LIMITED")
    assert (await client.get("/auth/me", headers=bearer)).headers["retry-after"] == "60"


async def test_a_neighbours_crash_tells_nothing(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    async def crash(_: object) -> auth_pb2.GetMeResponse:
        raise RuntimeError("the password is swordfish")

    neighbours.answers["GetMe"] = crash
    response = await client.get("/auth/me", headers=bearer)
    assert error_of(response) == (500, "INTERNAL", {})
    assert "swordfish" not in response.text


async def test_an_answer_without_its_resource_is_an_error(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    neighbours.answers["GetMe"] = auth_pb2.GetMeResponse()
    assert error_of(await client.get("/auth/me", headers=bearer))[:2] == (500, "INTERNAL")


async def test_a_service_that_is_down_is_503(bearer: Header) -> None:
    async with gateway(Neighbours(), sessions_target="127.0.0.1:9") as client:
        response = await client.delete(f"/sessions/{SESSION_ID}", headers=bearer)
        assert error_of(response) == (503, "SERVICE_UNAVAILABLE", {"service": "sessions"})
        assert (await client.get("/auth/me", headers=bearer)).status_code == 200
