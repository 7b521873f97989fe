"""What the store says of the queue, for Prometheus. The same numbers whichever process is asked: each comes from the store.

Counters and histograms are the sums that all processes have written (`services/tallies.py`), so they neither start anew with
a process nor depend on which of several is asked. Labels are task types, breakers, words of ours, and queues, of which so
many are told apart.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from app.core.breaker import BreakerState
from app.core.errors import StoreUnavailable
from app.core.settings import Settings
from app.core.tally import BOUNDS, ENDS, OTHERS, Durations, Pair, Tally
from app.core.version import VERSION
from app.models import dead_letters as dead_rows
from app.models import workers as worker_rows
from app.models.database import Database
from app.models.dead_letters import DeadFilter
from app.services.breakers import Breakers
from app.services.limits import QueueLimits, QueueReport
from app.services.tallies import Tallies
from app.services.webhooks import Webhooks

MOST_QUEUES = 100
"""Queues with a label of their own: those that somebody has steered or a worker names first, then the others by name. All
the rest are `_others`, because clients may invent names without end."""
SILENT_LIVE = timedelta(hours=24)
WORKER_STATES = ("running", "stopping", "failing", "silent")
QUEUE_STATES = ("ready", "blocked", "scheduled", "retrying", "running")


@dataclass(frozen=True, eq=False)
class Snapshot(Collector):
    """What the store said at one moment. `workers` and `webhooks` count them by state, `slots` those of the live workers."""

    queues: list[QueueReport]
    named: frozenset[str]
    totals: Mapping[Pair, Tally]
    workers: Mapping[str, int]
    slots: int
    breakers: Mapping[str, BreakerState]
    dead_letters: int
    webhooks: Mapping[str, int]

    def collect(self) -> Iterator[Metric]:
        """Every metric there is."""
        yield from self._of_queues()
        yield from self._of_tallies()
        yield from self._of_workers()
        breakers = GaugeMetricFamily(
            "taskservice_breaker_state", "1 for the state that a circuit breaker is in.", labels=("breaker", "state")
        )
        for name, state in self.breakers.items():
            for one in BreakerState:
                breakers.add_metric((name, one), float(one is state))
        yield breakers
        yield GaugeMetricFamily(
            "taskservice_dead_letters", "Failed tasks that nobody has dealt with.", value=self.dead_letters
        )
        webhooks = GaugeMetricFamily(
            "taskservice_webhooks",
            "Subscriptions by state; dead ones were switched off for failing.",
            labels=("state",),
        )
        for webhook_state, count in self.webhooks.items():
            webhooks.add_metric((webhook_state,), count)
        yield webhooks
        yield build_info()

    def _label(self, queue: str) -> str:
        return queue if queue in self.named else OTHERS

    def _of_queues(self) -> Iterator[Metric]:
        tasks = GaugeMetricFamily(
            "taskservice_queue_tasks", "Unfinished tasks of a queue by state.", labels=("queue", "status")
        )
        counts: dict[tuple[str, str], int] = {}
        oldest: dict[str, float] = {}
        for report in self.queues:
            label = self._label(report.rule.name)
            for status in QUEUE_STATES:
                counts[label, status] = counts.get((label, status), 0) + getattr(report.depth, status)
            oldest[label] = max(oldest.get(label, 0.0), report.oldest_age_seconds or 0.0)
        for key, count in counts.items():
            tasks.add_metric(key, count)
        yield tasks
        age = "How long the first ready task of a queue has been ready; 0 where none is."
        ages = GaugeMetricFamily("taskservice_queue_oldest_ready_seconds", age, labels=("queue",))
        for label, seconds in oldest.items():
            ages.add_metric((label,), seconds)
        yield ages
        yield from self._of_rules()

    def _of_rules(self) -> Iterator[Metric]:
        paused = GaugeMetricFamily("taskservice_queue_paused", "1 while a queue is paused.", labels=("queue",))
        running = GaugeMetricFamily(
            "taskservice_queue_max_running", "So many tasks of a queue may run.", labels=("queue",)
        )
        depth = GaugeMetricFamily("taskservice_queue_max_depth", "So many may wait in a queue.", labels=("queue",))
        for rule in (report.rule for report in self.queues if report.rule.name in self.named):
            paused.add_metric((rule.name,), float(rule.paused))
            if rule.max_running is not None:
                running.add_metric((rule.name,), rule.max_running)
            if rule.max_depth is not None:
                depth.add_metric((rule.name,), rule.max_depth)
        yield from (paused, running, depth)

    def _of_tallies(self) -> Iterator[Metric]:
        summed: dict[Pair, Tally] = {}
        for (queue, task_type), tally in self.totals.items():
            summed.setdefault((self._label(queue), task_type), Tally()).merge(tally)
        labels = ("queue", "task_type")
        submitted = CounterMetricFamily("taskservice_tasks_submitted", "Tasks that were stored.", labels=labels)
        ended = CounterMetricFamily("taskservice_tasks_ended", "Tasks that ended.", labels=(*labels, "status"))
        retried = CounterMetricFamily(
            "taskservice_attempts_retried", "Attempts after which another one was to come.", labels=labels
        )
        waits = HistogramMetricFamily(
            "taskservice_task_wait_seconds", "From being ready to the start of an attempt.", labels=labels
        )
        runs = HistogramMetricFamily("taskservice_task_run_seconds", "How long attempts ran.", labels=labels)
        for pair, tally in sorted(summed.items()):
            submitted.add_metric(pair, tally.submitted)
            retried.add_metric(pair, tally.retried)
            for status in ENDS:
                ended.add_metric((*pair, status), getattr(tally, status))
            for family, durations in ((waits, tally.wait), (runs, tally.run)):
                family.add_metric(pair, _buckets(durations), durations.total_seconds)
        yield from (submitted, ended, retried, waits, runs)

    def _of_workers(self) -> Iterator[Metric]:
        workers = GaugeMetricFamily(
            "taskservice_workers", "Worker processes by state; silent ones have not been heard of.", labels=("state",)
        )
        for state in WORKER_STATES:
            workers.add_metric((state,), self.workers.get(state, 0))
        yield workers
        yield GaugeMetricFamily(
            "taskservice_slots", "Attempts that the live workers could run at once.", value=self.slots
        )


def build_info() -> Metric:
    """Which version runs."""
    info = GaugeMetricFamily("taskservice_build_info", "1, with the version of the program.", labels=("version",))
    info.add_metric((VERSION,), 1)
    return info


def _buckets(durations: Durations) -> list[tuple[str, float]]:
    """Each bucket with all below it, as Prometheus counts."""
    bounds = [*(str(bound) for bound in BOUNDS), "+Inf"]
    sums, so_far = [], 0
    for bound, count in zip(bounds, durations.buckets, strict=True):
        so_far += count
        sums.append((bound, float(so_far)))
    return sums


def named(first: Iterable[str], names: Iterable[str]) -> frozenset[str]:
    """The queues that are told apart: `first` of all, then as many of `names` as there is room for."""
    chosen = list(dict.fromkeys([*sorted(first), *sorted(names)]))
    return frozenset(chosen[:MOST_QUEUES])


class Metrics:
    """Looks at the store for those who scrape."""

    def __init__(
        self,
        database: Database,
        limits: QueueLimits,
        tallies: Tallies,
        breakers: Breakers,
        webhooks: Webhooks,
        settings: Settings,
    ) -> None:
        self._database = database
        self._limits = limits
        self._tallies = tallies
        self._breakers = breakers
        self._webhooks = webhooks
        self._settings = settings
        self._clock = database.clock()

    async def snapshot(self) -> Snapshot:
        """All that is told now. Raises StoreUnavailable."""
        now = self._clock()
        with suppress(StoreUnavailable):  # it may be read still
            await self._tallies.write()
        queues = await self._limits.listed()
        totals = await self._tallies.totals()
        breakers = await self._breakers.states()
        webhooks = await self._webhooks.counts()
        async with self._database.read() as connection:
            rows = await worker_rows.listed(connection, now, SILENT_LIVE)
            dead_letters = await dead_rows.count(connection, DeadFilter())
        silence = timedelta(seconds=2 * self._settings.lease_seconds)
        live = [row for row in rows if abs(now - row.beat_at) <= silence]
        states = [row.state for row in live] + ["silent"] * (len(rows) - len(live))
        first = {self._settings.default_queue, *(queue for row in live for queue in row.queues)}
        first |= {report.rule.name for report in queues if report.steered}
        return Snapshot(
            queues=queues,
            named=named(first, {report.rule.name for report in queues} | {queue for queue, _ in totals} - {OTHERS}),
            totals=totals,
            workers={state: states.count(state) for state in WORKER_STATES},
            slots=sum(row.slots for row in live),
            breakers=breakers,
            dead_letters=dead_letters,
            webhooks=webhooks,
        )
