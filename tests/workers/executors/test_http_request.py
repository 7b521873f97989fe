"""`http_request` against real servers on this machine: what it sends, what it stores, when it tries again."""

import asyncio
import base64
import hashlib
import hmac
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from app.core.errors import OutboundFailed
from app.core.task import Status
from app.services.executors import Context, Fail, RecordedReports, Retry, RunnerSetup
from app.workers.executors.http_request import HttpRequest, request_http
from app.workers.http.call import UnexpectedStatus
from tests.security.conftest import Asked, Site, plain, serving
from tests.workers.conftest import Start

TOKEN = "crm-token-0123456789"


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(site: Site) -> str:
        monkeypatch.setenv("OUTBOUND_ALLOW", f"127.0.0.1:{site.port}")
        return site.url

    return make


async def run(url: str, attempt: int = 1, task_id: int = 7, most_bytes: int = 2**20, **payload: Any) -> dict[str, Any]:
    reports = Context(
        task_id=task_id, attempt=attempt, reports=RecordedReports(), setup=RunnerSetup(max_result_bytes=most_bytes)
    )
    return await request_http(HttpRequest(url=url, **payload), reports)


async def test_a_call_sends_what_was_asked_and_stores_what_came(allow: Any) -> None:
    async with serving(plain("201 Created", b'{"id": 1}', Content_Type="application/json", Set_Cookie="a=b")) as site:
        result = await run(f"{allow(site)}/orders?x=1", json={"order": "ü"}, headers={"X-Source": "tasks"})
    asked = site.asked[0]
    assert asked.line == "POST /orders?x=1 HTTP/1.1"
    assert (asked.body, asked.headers["content-type"]) == ('{"order":"ü"}'.encode(), "application/json")
    assert asked.headers["x-source"] == "tasks"
    assert (result["status"], result["body"], result["truncated"]) == (201, '{"id": 1}', False)
    assert result["headers"] == {"content-type": "application/json"}


async def test_every_attempt_has_the_same_key_and_every_task_its_own(allow: Any) -> None:
    async with serving(plain()) as site:
        url = allow(site)
        for task_id, attempt in ((7, 1), (7, 2), (8, 1)):
            await run(url, attempt, task_id, body="x")
    keys = [asked.headers["idempotency-key"] for asked in site.asked]
    assert keys[0] == keys[1] != keys[2]


async def test_a_key_of_the_payload_is_sent_as_it_is(allow: Any) -> None:
    async with serving(plain()) as site:
        await run(allow(site), headers={"idempotency-key": "mine"})
    assert site.asked[0].headers["idempotency-key"] == "mine"


async def test_a_signature_can_be_checked_by_the_receiver(allow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    key = b"0123456789abcdef"
    monkeypatch.setenv("SECRET_HOOK", f"whsec_{base64.b64encode(key).decode()}")
    monkeypatch.setenv("SECRETS_HOSTS", "hook=http://127.0.0.1")
    async with serving(plain()) as site:
        await run(allow(site), body="hello", sign_with="hook")
    headers = site.asked[0].headers
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.hello".encode()
    expected = base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


async def test_a_secret_goes_where_it_may(allow: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "crm").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    headers = {"Authorization": {"secret": "crm", "prefix": "Bearer "}}
    async with serving(plain()) as site:
        url = allow(site)
        for homes in ("", "other=127.0.0.1", "crm=127.0.0.1", "crm=http://127.0.0.1:1", "crm=http://example.com"):
            monkeypatch.setenv("SECRETS_HOSTS", homes)
            with pytest.raises(Fail, match="may not go to"):
                await run(url, headers=headers)
        assert site.connections == 0
        monkeypatch.setenv("SECRETS_HOSTS", f"crm=http://127.0.0.1:{site.port}|crm.example")
        await run(url, headers=headers)
        with pytest.raises(Fail, match="knows no secret 'nobody'"):
            await run(url, headers={"X-Key": {"secret": "nobody"}})
    assert [asked.headers["authorization"] for asked in site.asked] == [f"Bearer {TOKEN}"]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 599])
async def test_a_temporary_status_is_tried_again(status: int, allow: Any) -> None:
    async with serving(plain(f"{status} Later", b"not now")) as site:
        with pytest.raises(UnexpectedStatus, match=f"answered {status}.*: not now"):
            await run(allow(site))


async def test_retry_after_is_obeyed_and_bounded(allow: Any) -> None:
    for said, waited in (("17", 17.0), ("100000", 300.0)):
        async with serving(plain("429 Slow down", Retry_After=said)) as site:
            with pytest.raises(Retry) as raised:
                await run(allow(site))
        assert raised.value.after == waited


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 410, 422])
async def test_another_status_fails_at_once(status: int, allow: Any) -> None:
    async with serving(plain(f"{status} No", b"because")) as site:
        with pytest.raises(Fail, match=f"answered {status}.*because"):
            await run(allow(site))


async def test_expected_statuses_are_success_and_others_are_not(allow: Any) -> None:
    async with serving(plain("404 Not Found")) as site:
        assert (await run(allow(site), expected_status=[404]))["status"] == 404
        with pytest.raises(Fail):
            await run(site.url, expected_status=[200])


async def test_a_url_that_may_not_be_asked_fails_at_once() -> None:
    async with serving(plain()) as site:
        with pytest.raises(Fail, match=r"^Port \d+ may not be asked"):
            await run(site.url)
        assert site.connections == 0


async def test_the_answer_is_cut_at_its_cap(allow: Any) -> None:
    async with serving(plain(body="ä".encode() * 100)) as site:
        result = await run(allow(site), max_response_bytes=101)
    assert (result["body"], result["truncated"]) == ("ä" * 50, True)


@pytest.mark.parametrize("body", [b"\xff\xfe\x00", b"a\0b", b"\x01" * 100_000])
async def test_what_is_no_text_is_stored_in_base64(body: bytes, allow: Any) -> None:
    async with serving(plain(body=body)) as site:
        result = await run(allow(site), max_response_bytes=100_000, most_bytes=400_000)
    assert (result["body"], base64.b64decode(result["body_base64"])) == (None, body)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A header with a secret, for a host of this machine."""
    monkeypatch.setenv("SECRET_CRM", TOKEN)
    monkeypatch.setenv("SECRETS_HOSTS", "crm=http://127.0.0.1")
    return {"X-Key": {"secret": "crm"}}


def _traces(text: str | None) -> list[str]:
    """What there is of the secret, six characters or more."""
    pieces = [TOKEN[at : at + 6] for at in range(len(TOKEN) - 5)]
    return [piece for piece in pieces if piece in str(text)]


@pytest.mark.parametrize("before", ["you sent: ", ""])
async def test_a_secret_that_the_cap_cuts_in_two_is_not_stored(before: str, allow: Any, told: dict[str, Any]) -> None:
    async with serving(plain(body=(before + TOKEN + "." * 100).encode())) as site:
        for most in range(len(before) + len(TOKEN) + 2):
            result = await run(allow(site), headers=told, max_response_bytes=most)
            assert _traces(result["body"]) == []
            assert result["truncated"]
            assert result["body"] == (before + "[redacted]" + "." * 100)[:most]


async def test_a_secret_that_comes_often_leaves_no_half_at_the_end(allow: Any, told: dict[str, Any]) -> None:
    """Redacted it takes less than it did, so that what was read ends before the cap."""
    async with serving(plain(body=TOKEN.encode() * 1000)) as site:
        for most in range(100, 120):
            result = await run(allow(site), headers=told, max_response_bytes=most)
            assert (_traces(result["body"]), result["truncated"]) == ([], True)
            assert set(result["body"].split("[redacted]")) <= {"", *("[redacted]"[:n] for n in range(1, 10))}


@pytest.mark.parametrize("status", ["400 No", "503 Down"])
async def test_a_secret_that_an_excerpt_cuts_in_two_is_not_in_the_error(
    status: str, allow: Any, told: dict[str, Any]
) -> None:
    for padding in (5, *range(280, 301), *range(1180, 1201)):
        for gap in (".", " "):
            body = gap * padding + TOKEN + "." * 100
            for sent, most in ((body.encode(), 4000), (body.encode(), padding + 15), (body.encode("utf-16-le"), 4000)):
                async with serving(plain(status, sent)) as site:
                    with pytest.raises((Fail, UnexpectedStatus)) as raised:
                        await run(allow(site), headers=told, max_response_bytes=most)
                assert _traces(str(raised.value)) == []


async def test_a_host_that_is_down_costs_a_wait_and_not_an_attempt(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever runner and worker found out: the fifth failure holds the sixth task back."""
    async with serving(plain("503 Down")) as site, serving(plain()) as other:
        monkeypatch.setenv("OUTBOUND_ALLOW", f"127.0.0.1:{site.port},127.0.0.1:{other.port}")
        running = await start()
        for _ in range(5):
            task = await running.run("http_request", payload={"url": site.url}, max_attempts=1)
            assert task.status is Status.FAILED
        waiting = await running.submit("http_request", payload={"url": site.url})
        await running.in_status(waiting, Status.SCHEDULED)
        held = await running.services.tasks.get(waiting)
        assert (held.attempts, held.started_at) == (0, None)
        assert len(site.asked) == 5
        done = await running.run("http_request", payload={"url": other.url})  # another port is another host
        assert done.status is Status.COMPLETED
    (found,) = [one for one in await running.services.breakers.listed() if one.circuit.name.startswith("host:")]
    assert found.circuit.name == f"host:http:127.0.0.1:{site.port}"
    explained = await running.services.explainer.explain(waiting)
    assert "breaker_open" in [reason.reason for reason in explained.reasons]


async def test_a_refused_connection_is_a_failure_that_may_pass(allow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(plain()) as site:
        url = allow(site)
    with pytest.raises(OutboundFailed, match=r"The connection to 127\.0\.0\.1 failed"):
        await run(url)


@pytest.mark.parametrize(
    "payload",
    [
        *({"json": 1, "body": "x"}, {"method": "GET", "body": "x"}, {"method": "TRACE"}, {"headers": {"Host": "x"}}),
        *({"headers": {"A": "x", "a": "y"}}, {"headers": {"Authorization": "Bearer x"}}, {"headers": {"Cookie": "x"}}),
        *({"headers": {"X": "a\nb"}}, {"headers": {"X": 1}}, {"headers": {"X": {"secret": "A b"}}}, {"other": 1}),
        *({"expected_status": []}, {"expected_status": [99]}, {"max_response_bytes": -1}, {"sign_with": "../x"}),
        *({"sign_with": "x", "headers": {"Webhook-Id": "x"}}, {"url": ""}, {"url": "x" * 3000}),
    ],
)
def test_what_makes_no_sense_is_refused(payload: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HttpRequest.model_validate({"url": "https://example.com/", **payload})


async def test_the_api_refuses_a_url_that_no_worker_would_ask(client: httpx.AsyncClient) -> None:
    for url in (
        "http://127.0.0.1/",
        "file:///etc/passwd",
        "http://user:hunter2@example.com/",
        "http://example.com:22/",
    ):
        answer = await client.post("/tasks/", json={"task_type": "http_request", "payload": {"url": url}})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["location"] == ["body", "payload", "url"]
        assert "hunter2" not in answer.text


async def test_a_worker_calls_until_the_host_is_back(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["503 Down", "200 OK"])

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await plain(next(answers))(asked, writer)

    async with serving(answer) as site:
        monkeypatch.setenv("OUTBOUND_ALLOW", f"127.0.0.1:{site.port}")
        running = await start()
        retry = {"base_seconds": 0.01, "ceiling_seconds": 0.01}
        task = await running.run("http_request", payload={"url": site.url, "json": {"a": 1}}, retry=retry)
        assert (task.status, task.attempts) == (Status.COMPLETED, 2)
        assert site.asked[0].headers["idempotency-key"] == site.asked[1].headers["idempotency-key"]
        assert await running.outcomes(task.id) == ["error", "completed"]
