import io
import json
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

import taskclient.connection
from taskclient import NoAnswer
from taskctl import doctor
from taskctl.main import main

HEALTHY = {"status": "healthy", "version": "1", "checks": {}}
LINES = {"content-type": "application/problem+json"}


def diagnosis(**changes: Any) -> dict[str, Any]:
    return {"at": datetime.now(UTC).isoformat(), "version": "1", "checked": ["store"], "items": [], **changes}


class Pretender(httpx.BaseTransport):
    """An API that answers what it is told to, by path."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self.answers[request.url.path]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)


def findings(monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any]) -> list[dict[str, Any]]:
    """What doctor finds with an API that answers so. Its exit status says whether there is anything."""
    real = httpx.Client
    monkeypatch.setattr(
        taskclient.connection.httpx, "Client", lambda **options: real(**{**options, "transport": Pretender(answers)})
    )
    with redirect_stdout(io.StringIO()) as out:
        status = main(["doctor", "--json", "--url", "http://api"])
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    assert status == (1 if found else 0)
    assert all(set(one) == {"code", "severity", "what", "why", "what_to_do"} for one in found)
    return found


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (httpx.ConnectError("[Errno 111] Connection refused"), "not-running"),
        (httpx.ConnectError("[Errno -2] Name or service not known"), "unknown-host"),
        (httpx.ConnectError("[Errno -3] Temporary failure in name resolution"), "unknown-host"),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"), "certificate"),
        (httpx.ConnectTimeout("timed out"), "no-answer"),
        (httpx.ReadTimeout("timed out"), "no-answer"),
        (httpx.RemoteProtocolError("Server disconnected without sending a response."), "no-answer"),
        (httpx.Response(200, html="<h1>It works</h1>"), "not-the-service"),
        (httpx.Response(404, html="<h1>Not found</h1>"), "not-the-service"),
        (httpx.Response(301, headers={"location": "https://api/health"}), "not-the-service"),
        (httpx.Response(200, json={"ok": True}), "not-the-service"),
        (httpx.Response(401, headers=LINES, json={"detail": "No key."}), "not-allowed"),
        (httpx.Response(500, headers=LINES, json={"detail": "Something went wrong here."}), "refused"),
    ],
)
def test_a_service_that_cannot_be_asked_is_told_by_its_cause(
    monkeypatch: pytest.MonkeyPatch, answer: Any, code: str
) -> None:
    (found,) = findings(monkeypatch, {"/health": answer})
    assert (found["code"], found["severity"]) == (code, "critical")
    assert ".." not in "".join(found.values())


def test_what_the_service_finds_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"code": "low-disk", "severity": "warning", "what": "a", "why": "b", "what_to_do": "c"}
    assert findings(monkeypatch, {"/health": HEALTHY, "/diagnosis": diagnosis(items=[one])}) == [one]


def test_a_service_with_nothing_wrong_has_no_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings(monkeypatch, {"/health": HEALTHY, "/diagnosis": diagnosis()}) == []


def test_an_api_that_is_too_old_to_be_asked_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = httpx.Response(404, headers=LINES, json={"detail": "There is nothing at /diagnosis."})
    (found,) = findings(monkeypatch, {"/health": HEALTHY, "/diagnosis": missing})
    assert found["code"] == "api-too-old"


@pytest.mark.parametrize(
    ("seconds", "says"), [(-90, "90 s behind"), (-2, "2 s behind"), (0, ""), (1.9, ""), (30, "30 s ahead of")]
)
def test_clocks_that_differ_are_told(seconds: float, says: str) -> None:
    found = doctor.clocks_differ(seconds)
    assert bool(found) is bool(says)
    assert all(says in one.what for one in found)


def test_the_clock_is_compared_with_the_apis(monkeypatch: pytest.MonkeyPatch) -> None:
    late = (datetime.now(UTC) - timedelta(seconds=60)).isoformat()
    (found,) = findings(monkeypatch, {"/health": HEALTHY, "/diagnosis": diagnosis(at=late)})
    assert found["code"] == "clock-skew"
    assert "ahead of" in found["what"]


def test_a_reason_nobody_thought_of_is_still_a_finding() -> None:
    assert doctor.unreachable(NoAnswer("No answer: gremlins", unsure=False), "http://api").code == "no-answer"
