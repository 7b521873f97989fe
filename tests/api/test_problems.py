"""Every refusal is an RFC 9457 problem, and no request, however odd, is the server's fault."""

import random
from typing import Any
from urllib.parse import unquote

import httpx
import orjson
import pytest

from app.core.settings import Settings
from tests.api.conftest import JSON, Call, assert_problem, locations, raw, row_count, services_of, submit

BODY_ROUTES = [("POST", "/tasks"), ("POST", "/tasks/bulk"), ("PATCH", "/tasks/1")]


def assert_raw_problem(answer: tuple[int, dict[str, str], bytes], status: int) -> dict[str, Any]:
    """As `assert_problem`, for an answer to a raw request."""
    found, headers, content = answer
    assert found == status, (found, content[:300])
    assert headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = orjson.loads(content)
    assert problem["status"] == status
    return problem


@pytest.mark.parametrize(
    "path", ["/nothing", "/tasks/1/nothing", "/task", "/tasks/bulk/1", "/tasks//", "/TASKS", "/file", "/docs/x"]
)
async def test_an_unknown_path_is_404(client: httpx.AsyncClient, path: str) -> None:
    for url in (path, path + "?a=b"):
        assert_problem(await client.get("http://test" + url), 404, "not-found")


ROUTES: dict[str, set[str]] = {
    "/tasks": {"GET", "POST"},
    "/tasks/bulk": {"POST"},
    "/tasks/1": {"GET", "PATCH", "DELETE"},
    "/tasks/1/result": {"GET"},
    "/tasks/1/attempts": {"GET"},
    "/tasks/1/logs": {"GET"},
    "/tasks/1/events": {"GET"},
    "/tasks/1/cancel": {"POST"},
    "/tasks/1/retry": {"POST"},
    "/tasks/1/files": {"GET"},
    "/files": {"POST"},
    "/files/1": {"GET", "DELETE"},
    "/dead-letters": {"GET"},
    "/dead-letters/groups": {"GET"},
    "/dead-letters/requeue": {"POST"},
    "/dead-letters/resolve": {"POST"},
    "/dead-letters/purge": {"POST"},
    "/events": {"GET"},
    "/breakers": {"GET"},
    "/breakers/1/trip": {"POST"},
    "/breakers/1/reset": {"POST"},
    "/api-keys": {"GET", "POST"},
    "/api-keys/1": {"DELETE"},
    "/webhooks": {"GET", "POST"},
    "/webhooks/1": {"GET", "PATCH", "DELETE"},
    "/webhooks/1/test": {"POST"},
    "/webhooks/1/deliveries": {"GET"},
    "/webhooks/1/deliveries/1/redeliver": {"POST"},
    "/alerts": {"GET"},
    "/alerts/history": {"GET"},
    "/alerts/silences": {"GET", "POST"},
    "/alerts/silences/1": {"DELETE"},
    "/alerts/test": {"POST"},
    "/audit": {"GET"},
    "/session": {"GET", "POST", "DELETE"},
    "/task-types": {"GET"},
    "/task-types/1": {"GET"},
    "/tasks/1/explain": {"GET"},
    "/queues": {"GET"},
    "/autoscale": {"GET"},
    "/queues/1": {"GET", "PATCH"},
    "/queues/1/pause": {"POST"},
    "/queues/1/resume": {"POST"},
    "/diagnosis": {"GET"},
    "/workers": {"GET"},
    "/stats": {"GET"},
    "/metrics": {"GET"},
    "/health": {"GET"},
    "/health/live": {"GET"},
    "/health/ready": {"GET"},
    "/": {"GET"},
    "/docs": {"GET"},
    "/openapi.json": {"GET"},
}


@pytest.mark.parametrize("path", ROUTES)
async def test_another_method_is_405_and_says_which_there_are(client: httpx.AsyncClient, path: str) -> None:
    for slash in ("", "/") if path != "/" else ("",):
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - ROUTES[path]:
            answer = await client.request(method, path + slash)
            problem = assert_problem(answer, 405, "method-not-allowed")
            assert method in problem["detail"]
            allowed = {name.strip() for name in answer.headers["allow"].split(",")}
            assert allowed - {"HEAD", "OPTIONS"} == ROUTES[path], method


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "get", "X", "G\u00e9T", "<script>", "A" * 500])
async def test_odd_methods_are_405(client: httpx.AsyncClient, method: str) -> None:
    for path in ("/tasks", "/tasks/1", "/"):
        answer = await raw(client, method, path)
        assert_raw_problem(answer, 405)
        assert answer[1]["allow"]


@pytest.mark.parametrize(("method", "path"), BODY_ROUTES)
async def test_a_body_must_be_declared_as_json(client: httpx.AsyncClient, method: str, path: str) -> None:
    await submit(client)
    for declared in (
        *("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx"),
        *("", ";", "json", "application", "application/xml", "text/json, application/json", "é", "\x00"),
    ):
        headers = [(b"content-type", declared.encode("latin-1"))]
        problem = assert_raw_problem(await raw(client, method, path, headers=headers, body=[b"{}"]), 415)
        assert problem["type"].endswith(":unsupported-media-type")
    assert_raw_problem(await raw(client, method, path, body=[b"{}"]), 415)
    assert await row_count(client) == 1


@pytest.mark.parametrize(
    "declared", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json", "application/json ;x"]
)
async def test_json_may_be_declared_in_these_ways(client: httpx.AsyncClient, declared: str) -> None:
    answer = await client.post("/tasks", content=b'{"task_type":"echo"}', headers={"Content-Type": declared})
    assert answer.status_code == 201


@pytest.fixture
async def small(settings: Settings, serve: Any) -> httpx.AsyncClient:
    """An application that takes bodies of 1,000 bytes."""
    client: httpx.AsyncClient = await serve(
        settings.model_copy(update={"max_body_bytes": 1000, "max_bulk_body_bytes": 1000})
    )
    return client


@pytest.mark.parametrize(("method", "path"), BODY_ROUTES)
async def test_a_body_that_says_it_is_too_long_is_413_unread(small: httpx.AsyncClient, method: str, path: str) -> None:
    for length in (b"1001", b"9" * 19, b"9" * 5000):
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        async with Call(small, method, path, headers=headers, body=[b"{", b"}"]) as call:
            content = await call.content()
            problem = assert_raw_problem((call.status, call.headers, content), 413)
            assert problem["limit_bytes"] == 1000
            assert call.chunks_taken == 0


@pytest.mark.parametrize(("method", "path"), BODY_ROUTES)
@pytest.mark.parametrize("declared", [[], [(b"content-length", b"5")], [(b"transfer-encoding", b"chunked")]])
async def test_a_body_that_turns_out_too_long_is_413_at_once(
    small: httpx.AsyncClient, method: str, path: str, declared: list[tuple[bytes, bytes]]
) -> None:
    """Bytes are counted as they come; what was declared may be missing or a lie."""
    headers = [(b"content-type", b"application/json"), *declared]
    async with Call(small, method, path, headers=headers, body=[b" " * 100] * 1000) as call:
        content = await call.content()
        assert_raw_problem((call.status, call.headers, content), 413)
        assert call.chunks_taken == 11


async def test_a_body_of_exactly_the_limit_is_taken(small: httpx.AsyncClient) -> None:
    body = b'{"task_type":"echo"}'
    assert (await small.post("/tasks", content=body.ljust(1000), headers=JSON)).status_code == 201
    assert_problem(await small.post("/tasks", content=body.ljust(1001), headers=JSON), 413, "too-large")
    assert await row_count(small) == 1


async def test_the_default_limits_are_a_mebibyte_and_sixteen(client: httpx.AsyncClient) -> None:
    body = b'{"task_type":"echo"}'
    assert (await client.post("/tasks", content=body.ljust(2**20), headers=JSON)).status_code == 201
    assert_problem(await client.post("/tasks", content=body.ljust(2**20 + 1), headers=JSON), 413)
    bulk = b'{"tasks":[{"task_type":"echo"}]}'
    assert (await client.post("/tasks/bulk", content=bulk.ljust(2**20 + 1), headers=JSON)).status_code == 201
    assert_problem(await client.post("/tasks/bulk", content=bulk.ljust(2**24 + 1), headers=JSON), 413)


@pytest.mark.parametrize("length", [b"", b"-1", b"+5", b"5.5", b"0x10", b"x", b"\xb2", b"\xb9\xb2\xb3", b"1 2", b"5,5"])
async def test_a_length_that_is_no_number_is_not_believed(client: httpx.AsyncClient, length: bytes) -> None:
    """Servers refuse most of these before us; one that does not must not make us fail."""
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    status, _, content = await raw(client, "POST", "/tasks", headers=headers, body=[b'{"task_type":"echo"}'])
    assert status in (201, 400, 411, 413), content


async def test_keys_with_control_characters_or_other_letters_are_refused(client: httpx.AsyncClient) -> None:
    for key in (b"\x00", b"a\x7f", b"\xe9", b"\xff\xfe", b"a\nb", b"\x1b[31m", "é".encode(), b"a" * 10_000, b" ", b""):
        headers = [(b"content-type", b"application/json"), (b"idempotency-key", key)]
        answer = await raw(client, "POST", "/tasks", headers=headers, body=[b'{"task_type":"echo"}'])
        problem = assert_raw_problem(answer, 422)
        assert problem["errors"][0]["location"] == ["header", "Idempotency-Key"]
    assert await row_count(client) == 0


@pytest.mark.parametrize("task_id", ["x", "1.5", "1e3", "nan", "0x1", "%00", "%ff", "1%00", "é", "null", "--1", "1;"])
async def test_an_id_that_is_no_number_is_refused(client: httpx.AsyncClient, task_id: str) -> None:
    await submit(client)
    for method, path in (
        ("GET", f"/tasks/{task_id}"),
        ("GET", f"/tasks/{task_id}/result"),
        ("GET", f"/tasks/{task_id}/attempts"),
        ("GET", f"/tasks/{task_id}/logs"),
        ("GET", f"/tasks/{task_id}/events"),
        ("DELETE", f"/tasks/{task_id}"),
        ("PATCH", f"/tasks/{task_id}"),
        ("POST", f"/tasks/{task_id}/cancel"),
        ("POST", f"/tasks/{task_id}/retry"),
    ):
        answer = await client.request(method, path, json={} if method == "PATCH" else None)
        if answer.status_code == 404:
            assert_problem(answer, 404)
        else:
            assert locations(assert_problem(answer, 422)) == {"path.task_id"}
    assert await row_count(client) == 1


@pytest.mark.parametrize("task_id", ["9" * 19, "9" * 40, "9" * 4300, "9" * 5000, "-" + "9" * 5000])
async def test_an_id_of_any_length_is_a_refusal(client: httpx.AsyncClient, task_id: str) -> None:
    for path in (f"/tasks/{task_id}", f"/tasks/{task_id}/result", f"/tasks/{task_id}/events"):
        answer = await client.get(path)
        assert answer.status_code in (404, 422)
        assert_problem(answer, answer.status_code)


async def test_a_failure_of_ours_is_a_problem_that_tells_no_secrets(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(services_of(client).limits, "listed", broken)
    answer = await client.get("/queues")
    assert_problem(answer, 500, "internal")
    assert "hunter2" not in answer.text


async def test_the_path_is_named_as_it_was_asked_for(client: httpx.AsyncClient) -> None:
    assert assert_problem(await client.get("/tasks/7"), 404)["instance"] == "/tasks/7"
    assert '"<' not in (await client.get('/"<script>alert(1)</script>')).headers["content-type"]


ATOMS = [
    *(
        "%00",
        "%ff",
        "%c3%28",
        "%ed%a0%80",
        "%f0%9f%98%80",
        "%2e%2e",
        "%2f",
        "%5c",
        "%0d%0a",
        "%",
        "%zz",
        "%25",
        "..",
        ".",
    ),
    *("//", "/", "tasks", "bulk", "1", "-1", "0", "9" * 30, "result", "events", "attempts", "cancel", "docs", "assets"),
    *("health", "openapi.json", "queues", "é", "\U0001f600", " ", ";", "'", '"', "<", "\\", "~", "*", "x" * 3000),
]
NAMES = [
    "wait",
    "status",
    "task_type",
    "queue",
    "tag",
    "created_after",
    "created_before",
    "parent_id",
    "limit",
    "cursor",
]
VALUES = [
    *("", "0", "1", "-1", "nan", "inf", "-inf", "1e999", "true", "null", "9" * 25, "9" * 5000, "pending", "%00", "%ff"),
    *(
        "%ed%a0%80",
        "%f0%9f%98%80",
        "2030-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999-23:59",
        "0001-01-01T00:00:00%2B23:59",
    ),
    *(
        "-99999999999999",
        "1e18",
        "%27%20or%201=1--",
        "%25",
        "_",
        "%7C",
        "%0d%0a",
        "a&status=b",
        "=",
        "YmVmb3JlOjE",
        "x" * 2000,
    ),
]
METHODS = ["GET", "GET", "GET", "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "FOO"]


async def test_no_path_and_no_query_is_the_servers_fault(settings: Settings, serve: Any) -> None:
    client = await serve(settings.model_copy(update={"max_wait_seconds": 0.001}))
    await submit(client)
    chance = random.Random(20260102)
    for _ in range(1500):
        path = "/" + "".join(chance.choice(ATOMS) for _ in range(chance.randint(0, 5)))
        if chance.random() < 0.5:
            path = chance.choice(["/tasks", "/tasks/1", "/tasks/1/result", "/tasks/2/events", "/tasks/", "/stats"])
        names = [chance.choice([*NAMES, "include", "x%00"]) for _ in range(chance.randint(0, 4))]
        query = "&".join(f"{name}={chance.choice(VALUES)}" for name in names)
        method = chance.choice(METHODS)
        if path.rstrip("/").endswith("/1/events") or (method == "DELETE" and path == "/tasks/1"):
            continue
        answer = await _ask(client, method, path, query)
        seen = f"{method} {path[:100]}?{query[:300]}: {answer[0]} {answer[2][:200]!r}"
        assert answer[0] < 500, seen
        if answer[0] >= 400 and method != "HEAD":
            assert answer[1]["content-type"] == "application/problem+json", seen


async def _ask(client: httpx.AsyncClient, method: str, path: str, query: str) -> tuple[int, dict[str, str], bytes]:
    """As a server hands it on: percent-decoded, what is no UTF-8 replaced."""
    return await raw(client, method, unquote(path), query=query.encode())


async def test_odd_headers_are_nobodys_fault(client: httpx.AsyncClient) -> None:
    await submit(client)
    chance = random.Random(7)
    names = [
        b"accept",
        b"if-none-match",
        b"range",
        b"content-type",
        b"content-length",
        b"host",
        b"x-forwarded-for",
        b"expect",
    ]
    values = [
        b"",
        b"\x00",
        b"\xff",
        b"*",
        b'"',
        b'W/"',
        b",,,",
        b"bytes=0-",
        b"a" * 8000,
        "é".encode(),
        b"-1",
        b"100-continue",
    ]
    for _ in range(400):
        headers = [(chance.choice(names), chance.choice(values)) for _ in range(chance.randint(1, 5))]
        method, path = chance.choice(
            [*BODY_ROUTES, ("GET", "/tasks/1"), ("GET", "/tasks"), ("GET", "/docs"), ("GET", "/x")]
        )
        status, _, content = await raw(client, method, path, headers=headers, body=[b"{}"])
        assert status < 500, (method, path, headers, content[:200])
    assert await row_count(client) == 1


@pytest.mark.parametrize(("method", "path"), BODY_ROUTES)
async def test_a_client_that_goes_away_in_the_middle_of_its_body_is_no_failure_of_ours(
    client: httpx.AsyncClient, method: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise anyone could fill the log with errors."""
    await submit(client)
    headers = [(b"content-type", b"application/json")]
    body = [b'{"task_type":"echo"}']
    async with Call(client, method, path, headers=headers, body=body, unfinished=True) as call:
        call.hang_up()
        await call.over()
        assert call.status < 500
    assert "a request failed" not in capsys.readouterr().out
    assert await row_count(client) == 1
