import httpx

from tests.support.suites import RunningStack

PAGE = "https://pages.example"
SENT = "apikey,authorization,content-type,x-client-info,x-supabase-api-version"


async def test_page_of_another_origin_may_send_what_the_clients_send(embedded: RunningStack) -> None:
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": SENT}
    async with httpx.AsyncClient(base_url=embedded.supabase_url) as client:
        for path in ("/auth/v1/user", "/rest/v1/users", "/storage/v1/object/avatars/x"):
            answer = await client.options(path, headers=asks)
            assert answer.status_code == 204
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.headers["access-control-allow-headers"] == SENT
            assert "PATCH" in answer.headers["access-control-allow-methods"]


async def test_page_of_another_origin_reads_answers_and_refusals_but_sends_no_cookies(embedded: RunningStack) -> None:
    async with httpx.AsyncClient(base_url=embedded.supabase_url, headers={"Origin": PAGE}) as client:
        settings = await client.get("/auth/v1/settings", headers={"apikey": embedded.publishable_key})
        refused = await client.get("/auth/v1/user")
    assert (settings.status_code, refused.status_code) == (200, 401)
    for answer in (settings, refused):
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
