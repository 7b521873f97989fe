"""Every call of the client against the real application, and that it leaves out none of its routes."""

import inspect
import io
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from app.api import (
    alerts,
    api_keys,
    audit,
    breakers,
    dead_letters,
    diagnosis,
    explain,
    files,
    health,
    insights,
    queues,
    schemas,
    webhooks,
)
from app.api.app import create_app
from app.core.keys import Scope
from app.core.settings import Settings
from app.core.task import TERMINAL
from app.services.submissions import Submission
from taskclient import (
    AsyncClient,
    Client,
    Conflict,
    InvalidRequest,
    NotAllowed,
    NotFound,
    StillRunning,
    TaskCancelled,
    TaskFailed,
    TaskHandle,
    UnexpectedAnswer,
    models,
)
from tests.api.conftest import completed, errored, finished, row_count, run, services_of
from tests.api.test_health import break_store
from tests.conftest import until
from tests.taskclient.conftest import URL

PICTURE = Path(__file__).parents[2] / "examples" / "lighthouse.jpg"


async def test_a_task_is_submitted_and_its_result_fetched(tasks: AsyncClient, client: httpx.AsyncClient) -> None:
    task = await tasks.submit("echo", {"number": 7}, queue="mail", priority="high", tags=["a"])
    assert (task.id, task.task and task.task.status, task.replayed) == (1, "pending", False)
    await run(client, completed({"number": 7}))
    assert await task.result(timeout=10) == {"number": 7}
    assert task.task is not None
    assert (task.task.queue, task.task.priority, task.task.tags) == ("mail", 50, ["a"])
    assert repr(task) == "<AsyncTaskHandle 1 completed>"


async def test_a_payload_may_be_a_model_and_a_moment_a_datetime(tasks: AsyncClient) -> None:
    class Echo(BaseModel):
        number: int

    later = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)
    task = await tasks.submit("echo", Echo(number=3), scheduled_at=later)
    found = await tasks.get(task.id)
    assert (found.payload, found.scheduled_at, found.status) == ({"number": 3}, later, "scheduled")


async def test_one_idempotency_key_is_one_task(tasks: AsyncClient) -> None:
    first = await tasks.submit("echo", idempotency_key="order-1")
    again = await tasks.submit("echo", idempotency_key="order-1")
    assert (first.id, first.replayed, again.id, again.replayed) == (1, False, 1, True)
    other = await tasks.submit("echo")
    assert other.id != 1, "without a key of the caller's each call is a task of its own"


async def test_many_tasks_are_stored_together(tasks: AsyncClient, client: httpx.AsyncClient) -> None:
    handles = await tasks.submit_many({"task_type": "echo", "payload": {"number": n}, "queue": "q"} for n in range(5))
    assert [handle.id for handle in handles] == [1, 2, 3, 4, 5]
    assert handles[0].task is None
    assert (await handles[0].refresh()).queue == "q"
    with pytest.raises(InvalidRequest) as raised:
        await tasks.submit_many([{"task_type": "echo"}, {"task_type": "nothing"}])
    assert raised.value.type == "unknown-task-type"
    assert await row_count(client) == 5


async def test_a_failed_task_raises_with_its_error(tasks: AsyncClient, client: httpx.AsyncClient) -> None:
    task = await tasks.submit("echo")
    await run(client, errored(retryable=False))
    with pytest.raises(TaskFailed, match=r"^Task 1 failed \(error\): ValueError: no good$") as raised:
        await task.result()
    assert raised.value.error is not None
    assert (raised.value.error.type, raised.value.failure_reason) == ("ValueError", "error")
    assert raised.value.task == task.task


async def test_a_cancelled_task_raises(tasks: AsyncClient) -> None:
    task = await tasks.submit("echo")
    assert (await task.cancel()).status == "cancelled"
    with pytest.raises(TaskCancelled):
        await task.result()


async def test_a_task_that_has_not_ended_raises_a_timeout_and_goes_on(
    tasks: AsyncClient, client: httpx.AsyncClient
) -> None:
    task = await tasks.submit("echo")
    with pytest.raises(TimeoutError) as raised:
        await task.wait(timeout=0)
    assert isinstance(raised.value, StillRunning)
    assert raised.value.task.status == "pending"
    await run(client, completed(1))
    assert (await task.wait(timeout=0)).completed


async def test_a_wait_longer_than_the_service_allows_is_taken_up_again(
    tasks_of: Callable[[Settings], Any], settings: Settings
) -> None:
    tasks = await tasks_of(settings.model_copy(update={"max_wait_seconds": 0.01}))
    task = await tasks.submit("echo")
    with pytest.raises(StillRunning):
        await task.wait(timeout=0.5)


async def test_a_waiting_task_is_edited_and_a_failed_one_retried(tasks: AsyncClient, client: httpx.AsyncClient) -> None:
    task = await tasks.submit("echo", delay_seconds=600)
    edited = await task.edit(priority="high", tags=["b"], scheduled_at=None)
    assert (edited.priority, edited.tags, edited.status) == (50, ["b"], "pending")
    await run(client, errored(retryable=False))
    assert (await task.retry()).status == "pending"
    await run(client, completed(1))
    assert [one.outcome for one in await task.attempts()] == ["error", "completed"]
    with pytest.raises(Conflict) as raised:
        await task.edit(priority=1)
    assert raised.value.document["task_status"] == "completed"


async def test_a_task_is_deleted_once(tasks: AsyncClient) -> None:
    task = await tasks.submit("echo")
    await task.delete()
    with pytest.raises(NotFound):
        await task.delete()
    with pytest.raises(NotFound, match="There is no task 1"):
        await task.refresh()


async def test_a_list_fetches_its_pages_as_they_are_needed(
    tasks: AsyncClient, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskclient.operations.PAGE", 2)
    asked: list[str] = []
    tasks._http.event_hooks["request"].append(lambda request: _noted(asked, request))
    await tasks.submit_many({"task_type": "echo", "tags": ["t"]} for _ in range(5))
    asked.clear()
    iterator = tasks.list(tag="t")
    assert (await anext(iterator)).id == 5
    assert len(asked) == 1, "nothing is fetched ahead"
    assert [task.id async for task in iterator] == [4, 3, 2, 1]
    assert len(asked) == 3
    assert [task.id async for task in tasks.list(limit=3)] == [5, 4, 3]
    assert [task.id async for task in tasks.list(status=["failed", "running"])] == []
    assert [task.id async for task in tasks.list(limit=0)] == []


async def _noted(asked: list[str], request: httpx.Request) -> None:
    asked.append(str(request.url))


async def test_a_list_may_be_filtered_and_include_what_is_large(tasks: AsyncClient, client: httpx.AsyncClient) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    await finished(client, "completed", payload={"number": 2}, queue="b")
    parent = await tasks.submit("echo", parent_id=1)
    assert [task.id async for task in tasks.list(parent_id=1)] == [parent.id]
    assert [task.id async for task in tasks.list(created_after=before, queue="b", task_type="echo")] == [1]
    assert [task.id async for task in tasks.list(created_before=before)] == []
    assert [task.id async for task in tasks.list(q='"number":2')] == [1]
    assert [task.id async for task in tasks.list(q="no such text")] == []
    (bare,) = [task async for task in tasks.list(status="completed")]
    (whole,) = [task async for task in tasks.list(status="completed", include=["payload", "result"])]
    assert (bare.payload, bare.result) == (None, None)
    assert (whole.payload, whole.result) == ({"number": 2}, {"number": 1})


async def test_events_end_with_the_task(tasks: AsyncClient, client: httpx.AsyncClient) -> None:
    await finished(client, "completed")
    assert [task.status async for task in tasks.task(1).events()] == ["completed"]
    with pytest.raises(NotFound):
        [task async for task in tasks.events(99)]


async def test_the_service_is_shown(tasks: AsyncClient, client: httpx.AsyncClient) -> None:
    await services_of(client).workers.sign_in("mine", ["a"], ["echo"], 4)
    await tasks.submit("echo", queue="a")
    assert "echo" in {one.task_type for one in await tasks.task_types()}
    assert (await tasks.task_type("echo")).example == {"number": 1}
    assert [(one.queue, one.ready) for one in await tasks.queues()] == [("a", 1)]
    assert [one.name for one in await tasks.workers()] == ["mine"]
    assert (await tasks.stats()).live_workers == 1
    assert (await tasks.health()).checks["store"] == "ok"
    assert "workers" in (await tasks.diagnosis()).checked


async def test_an_unhealthy_service_is_an_answer(
    tasks: AsyncClient, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_store(monkeypatch)
    assert (await tasks.health()).status == "unhealthy"


async def test_dead_letters_are_found_grouped_and_dealt_with(tasks: AsyncClient, client: httpx.AsyncClient) -> None:
    for _ in range(4):
        await finished(client, "failed")
    letters = [one async for one in tasks.dead_letters.list(limit=3)]
    assert [one.id for one in letters] == [4, 3, 2]
    groups = await tasks.dead_letters.groups(task_type="echo")
    assert (groups.total, groups.items[0].count) == (4, 4)
    would = await tasks.dead_letters.purge(fingerprint=groups.items[0].fingerprint, dry_run=True)
    assert (would.dry_run, would.matched) == (True, 4)
    assert (await tasks.dead_letters.resolve(ids=[1], note="seen")).changed == 1
    assert (await tasks.get(1)).resolution == "seen"
    assert (await tasks.dead_letters.requeue(ids=[2])).task_ids == [2]
    assert (await tasks.dead_letters.purge(all=True)).changed == 2
    with pytest.raises(InvalidRequest):
        await tasks.dead_letters.purge()


async def test_breakers_are_tripped_and_reset(tasks: AsyncClient) -> None:
    assert (await tasks.breakers.trip("echo", "mended", seconds=60)).state == "open"
    assert [one.name for one in await tasks.breakers.list() if one.state == "open"] == ["echo"]
    assert (await tasks.breakers.reset("echo")).state == "closed"


async def test_a_webhook_is_made_tried_and_switched(tasks: AsyncClient) -> None:
    made = await tasks.webhooks.create("https://hooks.example.com/", events=["failed"], secrets=["crm"])
    assert (made.events, made.enabled, made.tenant) == (["failed"], True, None)
    assert await tasks.webhooks.list() == [await tasks.webhooks.get(made.id)] == [made]
    sent = await tasks.webhooks.test(made.id)
    assert [one.task_id async for one in tasks.webhooks.deliveries(made.id, status="pending")] == [sent.task_id]
    with pytest.raises(Conflict, match="being tried"):
        await tasks.webhooks.redeliver(made.id, sent.task_id)
    assert (await tasks.webhooks.change(made.id, enabled=False, description="CRM")).enabled is False
    await tasks.webhooks.delete(made.id)
    assert await tasks.webhooks.list() == []


async def test_files_go_in_and_out(tasks: AsyncClient, tmp_path: Path) -> None:
    stored = await tasks.files.upload(PICTURE)
    assert (stored.name, stored.content_type, stored.size) == ("lighthouse.jpg", "image/jpeg", 47923)
    assert await tasks.files.read(stored.id) == PICTURE.read_bytes()
    assert await tasks.files.download(stored.id, tmp_path / "a.jpg") == 47923
    assert (tmp_path / "a.jpg").read_bytes() == PICTURE.read_bytes()
    held = io.BytesIO()
    await tasks.files.download(stored.id, held)
    assert held.getvalue() == PICTURE.read_bytes()
    pieces = [piece async for piece in tasks.files.stream(stored.id)]
    assert b"".join(pieces) == PICTURE.read_bytes()
    other = await tasks.files.upload(b"a,b", name="numbers.csv")
    assert (other.name, other.content_type) == ("numbers.csv", "text/csv")
    await tasks.files.delete(other.id)
    with pytest.raises(NotFound):
        await tasks.files.delete(other.id)


async def test_a_download_that_fails_leaves_nothing_behind(tasks: AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("before")
    with pytest.raises(NotFound):
        await tasks.files.download("0" * 32, tmp_path / "kept.txt")
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".txt", ".part")] == ["kept.txt"]
    assert (tmp_path / "kept.txt").read_text() == "before"


async def test_the_files_of_a_task_are_listed(tasks: AsyncClient) -> None:
    stored = await tasks.files.upload(b"x", name="x.bin")
    task = await tasks.submit("image_processing", {"file_id": stored.id})
    assert [(one.id, one.role) for one in await task.files()] == [(stored.id, "input")]
    assert await tasks.task_files(task.id) == await task.files()


# What the two sides say of each other


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (models.Task, schemas.TaskView),
        (models.TaskError, schemas.ErrorView),
        (models.Progress, schemas.ProgressView),
        (models.Retry, schemas.RetryView),
        (models.Attempt, schemas.AttemptView),
        (models.Reason, explain.ReasonView),
        (models.Explanation, explain.ExplanationView),
        (models.TaskType, insights.TaskTypeView),
        (models.Queue, queues.QueueView),
        (models.Worker, insights.WorkerView),
        (models.Durations, insights.DurationsView),
        (models.Tally, insights.TallyView),
        (models.Point, insights.PointView),
        (models.Series, insights.SeriesView),
        (models.StatsRange, insights.RangeView),
        (models.Stats, insights.StatsView),
        (models.CauseGroup, dead_letters.CauseGroupView),
        (models.CauseGroups, dead_letters.CauseGroups),
        (models.Done, dead_letters.ActionView),
        (models.Breaker, breakers.BreakerView),
        (models.Alert, alerts.AlertView),
        (models.AlertDelivery, alerts.AlertDeliveryView),
        (models.Silence, alerts.SilenceView),
        (models.TriedChannel, alerts.TriedView),
        (models.AuditEntry, audit.EntryView),
        (models.ApiKey, api_keys.KeyView),
        (models.NewApiKey, api_keys.NewKey),
        (models.Webhook, webhooks.WebhookView),
        (models.Delivery, webhooks.DeliveryView),
        (models.StoredFile, files.FileView),
        (models.TaskFile, files.TaskFileView),
        (models.Health, health.Health),
        (models.Finding, diagnosis.FindingView),
        (models.Diagnosis, diagnosis.DiagnosisView),
    ],
)
def test_the_client_knows_every_field_that_the_service_says(ours: type[BaseModel], theirs: type[BaseModel]) -> None:
    assert set(ours.model_fields) == set(theirs.model_fields)


def test_a_dead_letter_is_a_task_with_a_fingerprint() -> None:
    theirs = set(dead_letters.DeadLetter.model_fields)
    assert set(models.DeadLetter.model_fields) == theirs | {"payload", "result"}


def test_the_options_of_a_submission_are_those_of_the_service() -> None:
    assert set(models.Submission.__annotations__) | set(models.SubmitOptions.__annotations__) == set(
        Submission.model_fields
    )
    assert set(models.Edits.__annotations__) == set(schemas.TaskPatch.model_fields)
    assert set(models.Limits.__annotations__) == set(schemas.QueuePatch.model_fields)
    made = set(models.Subscription.__annotations__) | {"url", "tenant"}
    assert made == set(schemas.WebhookRequest.model_fields)
    changed = set(models.Subscription.__annotations__) | set(models.WebhookChanges.__annotations__)
    assert changed == set(schemas.WebhookPatch.model_fields)
    assert set(models.Choice.__annotations__) == set(schemas.Selection.model_fields)
    assert {str(status) for status in TERMINAL} == models.ENDED


def test_what_a_newer_service_adds_is_kept() -> None:
    stats = dict.fromkeys(models.Stats.model_fields, 0) | {"oldest_ready_at": None, "range": None, "wishes": 3}
    assert models.Stats.model_validate(stats).model_dump()["wishes"] == 3


class Recorder(httpx.BaseTransport):
    """Answers nothing useful; notes what was asked."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = re.sub(r"/[0-9a-f]{32}(?=/|$)|/\d+(?=/|$)", "/{id}", request.url.path)
        self.asked.add(f"{request.method} {path}")
        return httpx.Response(409, headers={"content-type": "application/problem+json"}, json={"detail": "no"})


def test_every_route_has_a_call(tmp_path: Path) -> None:
    recorder = Recorder()
    client = Client(URL, transport=recorder)
    calls: list[Callable[[], Any]] = [
        lambda: client.submit("echo"),
        lambda: client.submit_many([]),
        lambda: client.get(1),
        lambda: client.edit(1, priority=2),
        lambda: client.cancel(1),
        lambda: client.retry(1),
        lambda: client.delete(1),
        lambda: client.attempts(1),
        lambda: client.explain(1),
        lambda: client.task_files(1),
        lambda: list(client.events(1)),
        lambda: list(client.list()),
        lambda: client.logs(1),
        client.task_types,
        lambda: client.task_type("{task_type}"),
        client.queues,
        lambda: client.queue("{name}"),
        lambda: client.pause_queue("{name}"),
        lambda: client.resume_queue("{name}"),
        lambda: client.limit_queue("{name}", max_running=1),
        client.workers,
        client.stats,
        client.health,
        client.diagnosis,
        lambda: list(client.dead_letters.list()),
        client.dead_letters.groups,
        client.dead_letters.requeue,
        client.dead_letters.resolve,
        client.dead_letters.purge,
        client.breakers.list,
        lambda: client.breakers.trip("{name}", "why"),
        lambda: client.breakers.reset("{name}"),
        client.webhooks.list,
        lambda: client.webhooks.create("https://hooks.example.com/"),
        lambda: client.webhooks.get("1"),
        lambda: client.webhooks.change("1", enabled=True),
        lambda: client.webhooks.delete("1"),
        lambda: client.webhooks.test("1"),
        lambda: list(client.webhooks.deliveries("1")),
        lambda: client.webhooks.redeliver("1", 2),
        lambda: list(client.audit()),
        client.alerts.list,
        lambda: list(client.alerts.history()),
        client.alerts.silences,
        lambda: client.alerts.silence(60, "why", every=True),
        lambda: client.alerts.end_silence(1),
        client.alerts.test,
        client.keys.list,
        lambda: client.keys.create("ci", ["read"]),
        lambda: client.keys.revoke("{key_id}"),
        lambda: client.files.upload(b""),
        lambda: client.files.read("0" * 32),
        lambda: client.files.delete("0" * 32),
    ]
    for call in calls:
        with pytest.raises(Conflict):
            call()
    client.close()
    paths = create_app(Settings()).openapi()["paths"]
    routes = {
        f"{method.upper()} {re.sub(r'{(?!key)[a-z]+_id}', '{id}', path)}"
        for path, methods in paths.items()
        for method in methods
    }
    # A result is read from the task; probes, the root, metrics, what scalers ask, and what is for browsers are for others.
    left_out = {"GET /tasks/{id}/result", "GET /health/live", "GET /health/ready", "GET /"}
    left_out |= {"GET /metrics", "GET /autoscale", "GET /events", "GET /session", "POST /session", "DELETE /session"}
    assert {
        re.sub("%7B|%7D", lambda m: {"%7B": "{", "%7D": "}"}[m[0]], one) for one in recorder.asked
    } == routes - left_out


# Addresses and keys


@pytest.mark.parametrize(
    "url", ["", "nonsense", "localhost:8000", "ftp://host", "http://", "http://[", "http://h:99999999"]
)
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="is not the address of a service"):
        Client(url)


def test_a_service_below_a_path_is_found() -> None:
    recorder = Recorder()
    with Client("http://host/work/", transport=recorder) as client, pytest.raises(Conflict):
        client.stats()
    assert recorder.asked == {"GET /work/stats"}


def test_the_key_is_sent_and_not_shown() -> None:
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200, json={"items": []})

    client = Client(URL, api_key="tk.secret", transport=httpx.MockTransport(answer))
    assert client.queues() == []
    client.close()
    assert seen == ["Bearer tk.secret"]
    assert "secret" not in repr(client) + repr(client.task(1))


@pytest.mark.parametrize(
    ("given", "sent"), [(None, "Bearer tk.environment"), ("tk.given", "Bearer tk.given"), ("", None)]
)
def test_a_key_that_nobody_gave_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, given: str | None, sent: str | None
) -> None:
    monkeypatch.setenv("TASKS_API_KEY", "tk.environment")
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200, json={"items": []})

    with Client(URL, api_key=given, transport=httpx.MockTransport(answer)) as client:
        client.queues()
    assert seen == [sent]


async def test_keys_are_made_listed_and_revoked(client: httpx.AsyncClient, tasks: AsyncClient) -> None:
    services = services_of(client)
    _, token = await services.keys.create("root", [Scope.ADMIN])
    await services.ring.load()
    with pytest.raises(NotAllowed):
        await tasks.stats()
    async with AsyncClient(URL, api_key=token, transport=httpx.ASGITransport(client.app)) as admin:  # type: ignore[attr-defined]
        made = await admin.keys.create("ci", ["submit", "read"], tenant="north", expires_in_seconds=60)
        assert (made.scopes, made.tenant) == (["read", "submit"], "north")
        assert made.key not in repr(made)
        assert [one.name for one in await admin.keys.list()] == ["root", "ci"]
        await admin.keys.revoke(made.id)
        assert (await admin.keys.list())[1].revoked_at
        with pytest.raises(NotFound):
            await admin.keys.revoke("../tasks/1")


@pytest.mark.parametrize(
    ("url", "trusted"), [("http://localhost:1", False), ("http://127.0.0.1", False), ("http://host", True)]
)
def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, url: str, trusted: bool
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    with Client(url) as client:
        assert bool(client._http._mounts) is trusted


def test_the_client_brings_nothing_of_the_service_with_it() -> None:
    code = "import sys, taskclient; print(sorted({name.split('.')[0] for name in sys.modules}))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PICTURE.parents[1]
    )
    loaded = set(json.loads(run.stdout.replace("'", '"')))
    assert "taskclient" in loaded
    assert not loaded & {"app", "fastapi", "starlette", "sqlalchemy", "uvicorn", "typer", "taskctl", "orjson"}


def test_help_tells_the_parameters_of_a_call() -> None:
    assert list(inspect.signature(Client.list).parameters)[:3] == ["self", "status", "task_type"]
    assert list(inspect.signature(Client.submit).parameters) == [
        "self",
        "task_type",
        "payload",
        "idempotency_key",
        "options",
    ]
    assert list(inspect.signature(TaskHandle.wait).parameters) == ["self", "timeout"]
    assert "Raises StillRunning" in str(TaskHandle.wait.__doc__)


async def test_an_answer_that_does_not_fit_is_told(tasks: AsyncClient) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"ready": "many"}))
    async with AsyncClient(URL, transport=transport) as stranger:
        with pytest.raises(UnexpectedAnswer, match=r"GET http://test/stats gave what no task service"):
            await stranger.stats()


async def test_a_loop_that_is_left_early_gives_its_connection_back() -> None:
    closed: list[bool] = []

    class Body(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                yield b": keep-alive\n\n"

        async def aclose(self) -> None:
            closed.append(True)

    transport = httpx.MockTransport(
        lambda _: httpx.Response(200, headers={"content-type": "application/octet-stream"}, stream=Body())
    )
    async with AsyncClient(URL, transport=transport) as tasks:
        async for _ in tasks.files.stream("0" * 32):
            break
        await until(lambda: closed)  # the loop closes a generator that nobody holds any more, a little later
