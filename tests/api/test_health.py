from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from structlog.testing import capture_logs

from app.api.health import Health
from app.core.errors import Overloaded, StoreFull, StoreUnavailable
from app.core.version import VERSION
from app.models import sqlite
from app.models.database import Database
from app.services.tasks import TaskService
from tests.api.conftest import assert_problem, row_count

AWAY = StoreUnavailable("The database is not available: disk I/O error")


def break_store(monkeypatch: pytest.MonkeyPatch, error: StoreUnavailable = AWAY) -> None:
    """From now on the store cannot be had."""

    @asynccontextmanager
    async def unavailable(self: Database, **_: bool) -> AsyncIterator[None]:
        raise type(error)(str(error))
        yield

    monkeypatch.setattr(Database, "read", unavailable)
    monkeypatch.setattr(Database, "write", unavailable)


@pytest.mark.parametrize("path", ["/health", "/health/", "/health/ready", "/health/ready/"])
async def test_a_sound_service_is_healthy(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    health = Health.model_validate_json(answer.content)
    assert (health.status, health.version, health.checks["store"]) == ("healthy", VERSION, "ok")


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
async def test_a_store_that_does_not_answer_is_unhealthy(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    break_store(monkeypatch)
    answer = await client.get(path)
    assert answer.status_code == 503
    assert answer.json()["status"] == "unhealthy"
    assert "disk I/O error" in answer.json()["checks"]["store"]


async def test_a_library_that_can_corrupt_a_log_is_said(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Database, "about", lambda self: {"sqlite": "3.40.1", "sqlite_warning": "see to it"})
    answer = await client.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json()["status"] == "degraded"
    assert "sqlite_warning" in answer.json()["checks"]


async def test_a_log_that_cannot_be_written_back_is_said(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "log_bytes", lambda path: sqlite.LOG_BYTES + 1)
    answer = await client.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json()["status"] == "degraded"
    assert f"{sqlite.LOG_BYTES + 1} bytes" in answer.json()["checks"]["log_warning"]


async def test_the_process_lives_even_if_the_store_does_not_answer(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_store(monkeypatch)
    for path in ("/health/live", "/health/live/"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


REQUESTS = [
    ("POST", "/tasks", {"task_type": "echo"}),
    ("POST", "/tasks/bulk", {"tasks": [{"task_type": "echo"}]}),
    ("GET", "/tasks", None),
    ("GET", "/tasks/1", None),
    ("GET", "/tasks/1/result", None),
    ("GET", "/tasks/1/attempts", None),
    ("GET", "/tasks/1/events", None),
    ("PATCH", "/tasks/1", {"priority": 1}),
    ("DELETE", "/tasks/1", None),
    ("POST", "/tasks/1/cancel", None),
    ("POST", "/tasks/1/retry", None),
    ("GET", "/queues", None),
    ("GET", "/workers", None),
    ("GET", "/stats", None),
]


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
async def test_a_store_that_cannot_be_had_is_503_with_a_time_to_try_again(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, method: str, path: str, body: object
) -> None:
    with monkeypatch.context() as patch:
        break_store(patch)
        answer = await client.request(method, path, json=body)
        assert_problem(answer, 503, "store-unavailable")
        assert 1 <= int(answer.headers["retry-after"]) <= 300
    assert await row_count(client) == 0


@pytest.mark.parametrize(("seconds", "told"), [(None, "2"), (0.04, "1"), (7.2, "8"), (100_000.0, "300")])
async def test_a_service_with_more_to_store_than_it_can_says_when_to_come_back(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, seconds: float | None, told: str
) -> None:
    async def refuse(self: TaskService, task: object) -> None:
        raise Overloaded("Too many requests are waiting for the database.", seconds)

    with monkeypatch.context() as patch:
        patch.setattr(TaskService, "submit", refuse)
        answer = await client.post("/tasks", json={"task_type": "echo"})
    assert_problem(answer, 503, "overloaded")
    assert answer.headers["retry-after"] == told
    assert await row_count(client) == 0


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
async def test_a_full_disk_is_507_with_a_time_to_try_again(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, method: str, path: str, body: object
) -> None:
    with monkeypatch.context() as patch:
        break_store(patch, StoreFull("The disk of the database is full."))
        answer = await client.request(method, path, json=body)
        assert assert_problem(answer, 507, "insufficient-storage")["title"] == "Insufficient Storage"
        assert 1 <= int(answer.headers["retry-after"]) <= 300
    assert await row_count(client) == 0


async def test_requests_that_are_refused_for_the_store_are_told_once(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, capture_logs() as lines:
        break_store(patch)
        for _ in range(20):
            await client.get("/tasks")
            await client.post("/tasks", json={"task_type": "echo"})
    assert [(line["what"], line["reason"]) for line in lines if "what" in line] == [
        ("answer GET", "The database is not available: disk I/O error"),
        ("answer POST", "The database is not available: disk I/O error"),
    ]


async def test_the_root_says_what_there_is_and_every_link_works(client: httpx.AsyncClient) -> None:
    document = (await client.get("/")).json()
    assert (document["service"], document["version"]) == ("task-service", VERSION)
    for name, path in document["links"].items():
        answer = await client.get(path)
        assert answer.status_code == (405 if name == "bulk" else 200), path


async def test_load_balancers_may_ask_with_head(client: httpx.AsyncClient) -> None:
    for path in ("/health", "/health/live", "/health/ready", "/tasks", "/"):
        assert (await client.head(path)).status_code == 200, path
    assert (await client.head("/tasks/1/events")).status_code == 405
