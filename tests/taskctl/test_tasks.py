"""What taskctl sends for tasks, against an API that takes everything."""

import json
from typing import Any

import httpx
import pytest

import taskclient.connection
from app.api.tasks import list_tasks
from app.services.submissions import Submission
from taskctl.main import main
from tests.taskclient.test_operations import task

EVERY_OPTION = (
    *("greet", "names:=[1]", "--queue", "q", "--priority", "20", "--at", "2026-12-24T18:00:00Z", "--in", "5"),
    *("--expires-at", "2026-12-25T18:00:00Z", "--max-attempts", "2", "--time-limit", "9", "--retry-for", "600"),
    *("--retry", "policy=fixed", "--retry", "base_seconds:=5", "--unique-key", "u", "--tag", "t", "--metadata", "a=b"),
    *("--parent", "1", "--concurrency-key", "c", "--concurrency-limit", "2", "--webhook-url", "https://a.example/b"),
)
EVERY_FILTER = (
    *("--status", "failed", "--status", "cancelled", "--task-type", "greet", "--queue", "q", "--tag", "t"),
    *("--after", "2026-12-24T18:00:00Z", "--before", "2026-12-25T18:00:00Z", "--parent", "1", "--text", "Ada"),
    *("--include", "payload", "--limit", "7"),
)

CHOSEN = {
    "retry": {"policy": "fixed", "base_seconds": 5, "ceiling_seconds": 60, "jitter": True},
    "retry_for_seconds": 600,
    "concurrency_key": "customer:17",
    "concurrency_limit": 2,
    "webhook_url": "https://a.example/b",
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[httpx.Request]:
    """The requests that taskctl makes."""
    requests: list[httpx.Request] = []
    real = httpx.Client

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        page = {"items": [], "next_cursor": None}
        is_list = request.method == "GET" and request.url.path == "/tasks"
        return httpx.Response(200, json=page if is_list else json.loads(task("pending", **CHOSEN)))

    monkeypatch.setattr(
        taskclient.connection.httpx,
        "Client",
        lambda **options: real(**{**options, "transport": httpx.MockTransport(answer)}),
    )
    return requests


def test_a_submission_may_say_whatever_the_api_takes(asked: list[httpx.Request]) -> None:
    assert main(["submit", *EVERY_OPTION]) == 0
    sent: dict[str, Any] = json.loads(asked[0].content)
    assert set(sent) == set(Submission.model_fields)
    assert sent["retry"] == {"policy": "fixed", "base_seconds": 5}
    assert (sent["retry_for_seconds"], sent["timeout_seconds"]) == (600, 9)
    assert sent["webhook_url"] == "https://a.example/b"


def test_a_list_is_chosen_by_whatever_the_api_takes(asked: list[httpx.Request]) -> None:
    assert main(["list", *EVERY_FILTER]) == 0
    sent = asked[0].url.params
    assert set(sent) | {"cursor"} == set(list_tasks.__annotations__) - {"request", "return"}
    assert sent.get_list("status") == ["failed", "cancelled"]
    assert sent["q"] == "Ada"


def test_what_was_chosen_for_a_task_is_shown(asked: list[httpx.Request], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["get", "1"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "waits between attempts fixed, 5.0 s to 60.0 s retry for 10 min" in said
    assert "concurrency_key customer:17 concurrency_limit 2 webhook_url https://a.example/b" in said
