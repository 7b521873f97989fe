"""Every answer tells a browser to do nothing with it but what it is for: by the route table, and whatever goes wrong."""

import re
from typing import Any

import httpx
import pytest
from starlette.routing import Mount, Route

from app.api.headers import LINES
from app.core.settings import Settings
from tests.security.conftest import House, MakeHouse
from tests.security.test_authorisation import filled, let_streams_end

BROWSER = {"Accept": "text/html"}
ALWAYS = {
    name.decode(): value.decode() for name, value in LINES if name not in (b"content-security-policy", b"cache-control")
}
OPEN = ("/dashboard/", "/docs/assets")
"""What is nobody's, and may be kept if it is asked for again."""


def assert_safe(answer: httpx.Response) -> None:
    told = answer.headers
    where = f"{answer.request.method} {answer.request.url}: {answer.status_code}"
    for name, value in ALWAYS.items():
        assert told.get_list(name) == [value], (where, name)
    policies = told.get_list("content-security-policy")
    assert len(policies) == 1, where
    assert "default-src 'none'" in policies[0], where
    if told.get("content-type", "").startswith("text/html"):
        policy = dict(part.split(" ", 1) for part in policies[0].split("; "))
        assert "unsafe" not in policy["script-src"], where
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'", where
    kept = told.get_list("cache-control")
    path = answer.request.url.path
    if answer.status_code in (200, 206, 304) and (path.startswith(OPEN) or path == "/"):
        assert kept in (["no-cache"], ["no-store"]), where
    elif answer.status_code in (200, 206, 304) and path.startswith("/files/"):
        assert kept == ["private, no-cache"], where
    else:
        assert kept == ["no-store"], where
    assert "server" not in told, where
    assert "access-control-allow-origin" not in told, where


async def test_every_route_with_every_method(client: httpx.AsyncClient) -> None:
    app: Any = client.app  # type: ignore[attr-defined]
    let_streams_end(client)
    tried = 0
    for route in app.routes:
        assert isinstance(route, Route | Mount)
        path = filled(re.sub(r":\w+}", "}", route.path)) + ("/swagger-ui.css" if isinstance(route, Mount) else "")
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "FOO"):
            assert_safe(await client.request(method, path))
            tried += 1
    assert tried >= 300


async def test_what_is_there_and_what_goes_wrong(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    task, file = await house.submitted("all"), await house.uploaded("all", data=b"<script>1</script>")
    asked = [
        *(("GET", f"/tasks/{task}", {}), ("GET", f"/tasks/{task}/result", {}), ("GET", "/tasks?limit=1", {})),
        *(("GET", f"/files/{file}", {}), ("GET", f"/files/{file}", {"headers": {"Range": "bytes=0-1"}})),
        *(("GET", "/tasks?limit=x", {}), ("GET", "/nothing", {}), ("PUT", "/tasks", {}), ("GET", "/metrics", {})),
        *(("POST", "/tasks", {"content": b"x" * 2_000_000, "headers": {"Content-Type": "application/json"}}),),
        *(("POST", "/tasks", {"content": b"{"}), ("POST", "/tasks", {"json": {}}), ("GET", "/", {"headers": BROWSER})),
        *(("GET", "/docs", {}), ("GET", "/openapi.json", {}), ("GET", "/session", {})),
    ]
    for method, path, parts in asked:
        for key in (None, "all", "wrong"):
            assert_safe(await house.ask(method, path, key, **parts))
    tag = (await house.ask("GET", f"/tasks/{task}", "all")).headers["etag"]
    unchanged = await house.ask("GET", f"/tasks/{task}", "all", headers={"If-None-Match": tag})
    assert unchanged.status_code == 304
    assert_safe(unchanged)
    await house.ask("POST", f"/tasks/{task}/cancel", "all")
    stream = await house.ask("GET", f"/tasks/{task}/events", "all")
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert_safe(stream)

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(house.services.tasks, "get", broken)
    bug = await house.ask("GET", "/tasks/1", "all")
    assert bug.status_code == 500
    assert_safe(bug)


async def test_too_many_requests_are_refused_with_the_headers_too(locked: MakeHouse) -> None:
    house = await locked(address_requests_per_second=1)
    answers = [await house.ask("GET", "/tasks", "all") for _ in range(5)]
    assert answers[-1].status_code == 429
    for answer in answers:
        assert_safe(answer)


async def test_a_stranger_who_comes_by_another_name_gets_them_too(client: httpx.AsyncClient) -> None:
    answer = await client.get("http://127.0.0.1/tasks", headers={"Host": "evil.example"})
    assert answer.status_code == 403
    assert_safe(answer)


@pytest.mark.parametrize(
    ("seconds", "address", "url", "told"),
    [
        (0, "https://test", "", None),
        (60, "http://test", "", None),
        (60, "https://test", "", "max-age=60"),
        (60, "http://test", "https://tasks.example", "max-age=60"),
        (0, "https://test", "https://tasks.example", None),
    ],
)
async def test_hsts_is_for_tls_and_only_if_it_is_set(
    serve: Any, settings: Settings, seconds: int, address: str, url: str, told: str | None
) -> None:
    urls = (url,) if url else ()
    client = await serve(settings.model_copy(update={"hsts_seconds": seconds, "public_urls": urls}))
    for path in ("/tasks", "/nothing", "/health"):
        answer = await client.get(f"{address}{path}")
        assert answer.headers.get("strict-transport-security") == told


async def test_the_script_within_the_documentation_is_the_one_that_may_run(client: httpx.AsyncClient) -> None:
    policy = (await client.get("/docs")).headers["content-security-policy"]
    assert policy.count("'sha256-") == 1
