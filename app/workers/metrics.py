"""What one worker process says of itself, for Prometheus, on a port of its own. Numbers about the queue are the API's."""

from collections.abc import Callable, Iterator
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from app.core import events
from app.core.errors import SettingsError
from app.core.events import EventBus
from app.core.tally import BOUNDS
from app.services.metrics import build_info


class WorkerMetrics:
    """Counts what this worker does, from its events."""

    def __init__(self, bus: EventBus, slots: int) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(_BuildInfo())
        Gauge("taskservice_worker_slots", "Attempts it could run at once.", registry=self.registry).set(slots)
        self._running = Gauge("taskservice_worker_running", "Attempts it holds now.", registry=self.registry)
        self._claimed = self._counter("taskservice_worker_claimed", "Tasks it has claimed.", "task_type")
        self._attempts = self._counter(
            "taskservice_worker_attempts", "Attempts that ended, by how.", "task_type", "outcome"
        )
        self._seconds = Histogram(
            "taskservice_worker_run_seconds",
            "How long attempts ran.",
            ("task_type",),
            buckets=BOUNDS,
            registry=self.registry,
        )
        self._refused = self._counter("taskservice_worker_leases_refused", "Late writes that changed nothing.")
        self._died = self._counter("taskservice_worker_runners_died", "Runners that ended unasked.")
        self._troubles = self._counter("taskservice_worker_store_troubles", "Times the store could not be used.")
        bus.subscribe(events.TasksClaimed, self._note_claims)
        bus.subscribe(events.TasksSettled, self._note_ends)
        bus.subscribe(events.LeasesRefused, lambda event: self._refused.inc(len(event.ids)))
        bus.subscribe(events.RunnerDied, lambda _: self._died.inc())
        bus.subscribe(events.StoreTroubled, lambda _: self._troubles.inc())

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, registry=self.registry)

    def watch(self, running: Callable[[], int]) -> None:
        """Have `running` asked at each scrape, in another thread."""
        self._running.set_function(lambda: float(running()))

    def _note_claims(self, event: events.TasksClaimed) -> None:
        for task in event.tasks:
            self._claimed.labels(task.task_type).inc()

    def _note_ends(self, event: events.TasksSettled) -> None:
        if event.worker_id is None:
            return  # another worker's, which this process has swept
        for one in event.settlements:
            self._attempts.labels(one.task_type, one.outcome).inc()
            if one.run_seconds is not None:
                self._seconds.labels(one.task_type).observe(one.run_seconds)

    def serve(self, host: str, port: int) -> tuple[WSGIServer, int]:
        """Answer scrapes in a thread, on this port or (0) a free one, which is returned. Raises SettingsError."""
        try:
            server, _ = start_http_server(port, host, self.registry)
        except OSError as error:
            why = error.strerror or str(error)
            raise SettingsError(f"Cannot listen on {host}:{port} for metrics: {why}") from error
        return server, server.server_port


class _BuildInfo(Collector):
    def collect(self) -> Iterator[Metric]:
        yield build_info()
