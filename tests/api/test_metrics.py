import asyncio
import shutil
from asyncio.subprocess import PIPE, STDOUT
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.core.lifecycle import Errored
from app.core.tally import BUCKETS, OTHERS
from app.services import metrics
from tests.api.conftest import claim, completed, errored, run, services_of, submit

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scrape(client: httpx.AsyncClient) -> Samples:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return parsed(answer.text)


def of(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, tuple(sorted(labels.items()))))


async def test_metrics_say_what_the_store_has(client: httpx.AsyncClient) -> None:
    for outcome in (completed(1), errored(retryable=False), errored(after_seconds=600)):
        await submit(client, queue="a")
        await run(client, outcome)
    await submit(client, queue="a")
    await claim(client)
    for _ in range(2):
        await submit(client, queue="a", concurrency_key="k")
    await client.patch("/queues/a", json={"paused": True, "max_running": 5, "max_depth": 9})
    await services_of(client).workers.sign_in("w", (), ("echo",), 4)
    found = await scrape(client)
    counts = {status: of(found, "taskservice_queue_tasks", queue="a", status=status) for status in metrics.QUEUE_STATES}
    assert counts == {"ready": 1, "blocked": 1, "scheduled": 0, "retrying": 1, "running": 1}
    assert of(found, "taskservice_queue_paused", queue="a") == 1
    assert (
        of(found, "taskservice_queue_max_running", queue="a"),
        of(found, "taskservice_queue_max_depth", queue="a"),
    ) == (5, 9)
    age = of(found, "taskservice_queue_oldest_ready_seconds", queue="a")
    assert age is not None
    assert 0 <= age < 60
    pair = {"queue": "a", "task_type": "echo"}
    assert of(found, "taskservice_tasks_submitted_total", **pair) == 6
    ends = {
        end: of(found, "taskservice_tasks_ended_total", **pair, status=end)
        for end in ("completed", "failed", "cancelled")
    }
    assert ends == {"completed": 1, "failed": 1, "cancelled": 0}
    assert of(found, "taskservice_attempts_retried_total", **pair) == 1
    assert of(found, "taskservice_task_wait_seconds_count", **pair) == 4
    assert of(found, "taskservice_task_wait_seconds_bucket", **pair, le="+Inf") == 4
    assert of(found, "taskservice_dead_letters") == 1
    assert (of(found, "taskservice_workers", state="running"), of(found, "taskservice_slots")) == (1, 4)


async def test_every_process_says_the_same(client: httpx.AsyncClient, serve: Any, settings: Any) -> None:
    other = await serve(settings)
    await submit(client)
    await submit(other)
    await scrape(other)  # writes what it has counted
    first, second = await scrape(client), await scrape(other)
    assert of(first, "taskservice_tasks_submitted_total", queue="default", task_type="echo") == 2
    assert {key: value for key, value in first.items() if "oldest" not in key[0]} == {
        key: value for key, value in second.items() if "oldest" not in key[0]
    }


async def test_counters_never_go_back_though_rows_are_deleted(client: httpx.AsyncClient) -> None:
    task = await submit(client)
    await run(client, completed(1))
    await client.delete(f"/tasks/{task['id']}")
    found = await scrape(client)
    assert of(found, "taskservice_tasks_ended_total", queue="default", task_type="echo", status="completed") == 1


async def test_buckets_are_cumulative(client: httpx.AsyncClient) -> None:
    await submit(client)
    await run(client, completed(1))
    found = await scrape(client)
    buckets = [value for (name, _), value in found.items() if name == "taskservice_task_run_seconds_bucket"]
    assert len(buckets) == BUCKETS
    assert buckets == sorted(buckets)


async def test_a_silent_worker_is_told_until_it_is_forgotten(client: httpx.AsyncClient) -> None:
    await services_of(client).workers.sign_in("w", (), ("echo",), 4)
    later = datetime.now(UTC) + timedelta(minutes=5)
    services_of(client).metrics._clock = lambda: later
    found = await scrape(client)
    assert (of(found, "taskservice_workers", state="silent"), of(found, "taskservice_workers", state="running")) == (
        1,
        0,
    )


async def test_breakers_have_one_state_each(client: httpx.AsyncClient) -> None:
    await client.post("/breakers/echo/trip", json={"reason": "no"})
    found = await scrape(client)
    states = {
        state: of(found, "taskservice_breaker_state", breaker="echo", state=state)
        for state in ("open", "closed", "half_open")
    }
    assert states == {"open": 1, "closed": 0, "half_open": 0}


async def test_subscriptions_are_counted_by_state(client: httpx.AsyncClient) -> None:
    for name in ("on", "off"):
        body = {"url": f"https://{name}.example.com/", "secrets": ["crm"]}
        webhook = (await client.post("/webhooks", json=body)).json()
    assert (await client.patch(f"/webhooks/{webhook['id']}", json={"enabled": False})).status_code == 200
    dying = (await client.post("/webhooks", json=body)).json()
    await client.post(f"/webhooks/{dying['id']}/test")
    await run(client, Errored("Fail", "https://off.example.com/ answered 410 Gone.", retryable=False))
    found = await scrape(client)
    states = {state: of(found, "taskservice_webhooks", state=state) for state in ("on", "failing", "off", "dead")}
    assert states == {"on": 1, "failing": 0, "off": 1, "dead": 1}


async def test_queues_that_clients_invent_share_a_label(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those that somebody steers, or that a worker names, keep theirs."""
    monkeypatch.setattr(metrics, "MOST_QUEUES", 4)
    for number in range(6):
        await submit(client, queue=f"q{number}")
    await client.post("/queues/q5/pause")
    await services_of(client).workers.sign_in("w", ("q4",), ("echo",), 4)
    found = await scrape(client)
    queues = {dict(labels)["queue"] for (name, labels) in found if "queue" in dict(labels)}
    assert queues == {"q0", "q4", "q5", OTHERS}
    assert of(found, "taskservice_queue_tasks", queue=OTHERS, status="ready") == 3
    assert of(found, "taskservice_tasks_submitted_total", queue=OTHERS, task_type="echo") == 3


async def test_labels_hold_nothing_of_a_task(client: httpx.AsyncClient) -> None:
    await submit(
        client, payload={"number": 424242}, tags=["secret-tag"], unique_key="secret-key", concurrency_key="secret"
    )
    text = (await client.get("/metrics")).text
    assert "secret" not in text
    assert "424242" not in text


async def test_the_newer_format_is_given_where_it_is_asked_for(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
async def test_promtool_finds_nothing_wrong_with_the_metrics(client: httpx.AsyncClient) -> None:
    await submit(client)
    text = (await client.get("/metrics")).content
    tool = await asyncio.create_subprocess_exec("promtool", "check", "metrics", stdin=PIPE, stdout=PIPE, stderr=STDOUT)
    said, _ = await tool.communicate(text)
    assert (tool.returncode, said) == (0, b"")
