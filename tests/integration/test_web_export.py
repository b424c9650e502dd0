import base64
import hashlib
import re

import httpx
import pytest

PAGES = ("/", "/login/", "/signup/", "/chat/", "/search/", "/settings/", "/archive/")


@pytest.mark.parametrize("path", PAGES)
async def test_the_suite_shows_the_web_app_with_a_policy_for_its_scripts(api: httpx.AsyncClient, path: str) -> None:
    page = await api.get(path)
    assert page.status_code == 200
    assert "/_next/static/" in page.text
    policy = page.headers["content-security-policy"]
    inline = re.findall(r"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", page.text, flags=re.DOTALL)
    assert inline
    for text in inline:
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy
    for script in re.findall(r'<script[^>]*\ssrc="([^"]+)"', page.text):
        answer = await api.get(script)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/javascript")


async def test_pages_may_reach_the_supabase_that_the_suite_names(api: httpx.AsyncClient) -> None:
    supabase = (await api.get("/config.json")).json()["supabase_url"]
    policy = (await api.get("/login/")).headers["content-security-policy"]
    assert f"connect-src 'self' {supabase} {supabase.replace('http', 'ws', 1)};" in policy


async def test_scripts_travel_packed(api: httpx.AsyncClient) -> None:
    page = await api.get("/chat/")
    scripts = re.findall(r'<script[^>]*\ssrc="(/_next/[^"]+)"', page.text)
    assert scripts
    sizes = {"gzip": 0, "identity": 0}
    for script in scripts:
        for encoding in sizes:
            async with api.stream("GET", script, headers={"accept-encoding": encoding}) as answer:
                sizes[encoding] += len(b"".join([piece async for piece in answer.aiter_raw()]))
    assert sizes["gzip"] < sizes["identity"] / 2
