"""A worker's own metrics: counted from its events, served on a port of its own."""

import socket
from contextlib import closing

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.core.errors import SettingsError
from app.core.events import MetricsServed
from app.services.wiring import Services
from app.workers.metrics import WorkerMetrics
from app.workers.worker import Worker, WorkerOptions
from tests.conftest import until
from tests.workers.conftest import Start


async def scraped(port: int) -> dict[tuple[str, str], float]:
    """By name and the values of the labels."""
    async with httpx.AsyncClient(timeout=10) as client:
        text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_a_worker_tells_what_it_does(start: Start) -> None:
    running = await start(processes=1, metrics_port=0)
    port = await until(lambda: running.worker.metrics_port)
    for task_type in ("echo", "echo", "raise_error"):
        await running.run(task_type, max_attempts=1)

    async def told() -> dict[tuple[str, str], float] | None:
        """It is told after the commit, which is when the task has ended."""
        found = await scraped(port)
        return found if ("taskservice_worker_attempts_total", "error,raise_error") in found else None

    found = await until(told)
    assert found["taskservice_worker_claimed_total", "echo"] == 2
    assert found["taskservice_worker_attempts_total", "completed,echo"] == 2
    assert found["taskservice_worker_attempts_total", "error,raise_error"] == 1
    assert found["taskservice_worker_run_seconds_count", "echo"] == 2
    assert found["taskservice_worker_running", ""] == 0
    assert found["taskservice_worker_slots", ""] == 4
    assert found["process_resident_memory_bytes", ""] > 0


async def test_a_port_that_is_taken_is_told_in_one_line(services: Services) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        metrics = WorkerMetrics(services.bus, 4)
        with pytest.raises(
            SettingsError, match=f"Cannot listen on 127.0.0.1:{port} for metrics: Address already in use"
        ):
            metrics.serve("127.0.0.1", port)


async def test_without_a_port_nothing_is_served(services: Services) -> None:
    heard: list[MetricsServed] = []
    services.bus.subscribe(MetricsServed, heard.append)
    worker = Worker(services, WorkerOptions("w", (), 1, 1))
    async with worker._measured():
        assert heard == []
