import re

import httpx
import pytest


@pytest.mark.parametrize("path", ["/docs", "/docs/"])
async def test_the_page_needs_nothing_but_this_service(client: httpx.AsyncClient, path: str) -> None:
    page = await client.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "://" not in page.text.replace("http://www.w3.org", ""), "the page must work without a network"
    links = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']""", page.text)
    assert {"/openapi.json"} < set(links)
    assert len(links) >= 4
    for link in links:
        assert link.startswith("/")
        assert (await client.get(link)).status_code == 200, link


async def test_assets_have_their_types(client: httpx.AsyncClient) -> None:
    script = await client.get("/docs/assets/swagger-ui-bundle.js")
    assert script.headers["content-type"].startswith(("text/javascript", "application/javascript"))
    style = await client.get("/docs/assets/swagger-ui.css")
    assert style.headers["content-type"].startswith("text/css")
    assert "url(http" not in style.text


@pytest.mark.parametrize(
    "path", ["nothing.js", "../__init__.py", "..%2f__init__.py", "%2e%2e/%2e%2e/app.py", "%00", "/etc/passwd"]
)
async def test_nothing_but_assets_is_served(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(f"/docs/assets/{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
