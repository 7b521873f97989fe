"""What happened, said once, after the commit. Listeners (logs, hints, metrics) do the rest; logic never calls them."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from app.core.alerts import Alert
from app.core.breaker import Circuit
from app.core.keys import ApiKey
from app.core.lifecycle import Change
from app.core.limits import QueueRule
from app.core.logger import structlog
from app.core.task import ClaimedTask, NewTask, Task
from app.core.values import value
from app.core.webhook import Webhook


@dataclass(frozen=True, slots=True)
class TasksSubmitted:
    """Stored and committed; `ids` in the order of `tasks`."""

    ids: tuple[int, ...]
    tasks: tuple[NewTask, ...]


@dataclass(frozen=True, slots=True)
class TasksClaimed:
    worker_id: str
    tasks: tuple[ClaimedTask, ...]


@value
class Settlement:
    """One attempt's end: which task, how it ended (the outcome's word), what the task became, how long it ran."""

    task_type: str
    queue: str
    attempt: int
    outcome: str
    change: Change
    run_seconds: float | None


@dataclass(frozen=True, slots=True)
class TasksSettled:
    worker_id: str | None
    settlements: tuple[Settlement, ...]


@dataclass(frozen=True, slots=True)
class LeasesRefused:
    """Late writes that changed nothing, because the lease had gone to somebody else. Normal after a freeze."""

    worker_id: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TaskProgressed:
    """Some tasks said how far they are, or something else."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TaskCancelRequested:
    """A running task was asked to stop; its worker should look."""

    task: Task


@dataclass(frozen=True, slots=True)
class TaskCancelled:
    """A waiting task was cancelled."""

    task: Task


@dataclass(frozen=True, slots=True)
class TaskRetried:
    """A person asked for another run."""

    task: Task


@dataclass(frozen=True, slots=True)
class TasksRequeued:
    """A person asked for another run of dead letters."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DeadLettersResolved:
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DeadLettersPurged:
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TaskEdited:
    task: Task


@dataclass(frozen=True, slots=True)
class TaskDeleted:
    task: Task


@dataclass(frozen=True, slots=True)
class TasksPromoted:
    """Scheduled or retrying tasks became due; `queues` they wait in."""

    count: int
    queues: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TasksExpired:
    """They had not started in time; `pairs` has queue and task type of each."""

    ids: tuple[int, ...]
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class TasksAdmitted:
    """Blocked tasks got a place of their concurrency key, and wait for a worker now."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class QueuePlacesFreed:
    """Where a limit held tasks back, some may start now."""


@dataclass(frozen=True, slots=True)
class QueueChanged:
    """A person paused or resumed a queue, or changed its limits."""

    before: QueueRule
    after: QueueRule


@dataclass(frozen=True, slots=True)
class TasksPruned:
    count: int


@dataclass(frozen=True, slots=True)
class FileStored:
    """A file came in, or a task's attempt saved one."""

    id: str
    size: int
    task_id: int | None = None


@dataclass(frozen=True, slots=True)
class FilesRemoved:
    count: int


@dataclass(frozen=True, slots=True)
class KeyCreated:
    """There is a new API key."""

    key: ApiKey


@dataclass(frozen=True, slots=True)
class KeyRevoked:
    """An API key opens nothing any more."""

    key: ApiKey


@dataclass(frozen=True, slots=True)
class WebhookCreated:
    """Somebody is to be told of what ends from now on."""

    webhook: Webhook


@dataclass(frozen=True, slots=True)
class WebhookChanged:
    """A person changed a subscription, or switched it on or off."""

    before: Webhook
    after: Webhook


@dataclass(frozen=True, slots=True)
class WebhookRemoved:
    webhook: Webhook


@dataclass(frozen=True, slots=True)
class WebhookSwitchedOff:
    """The receiver of a subscription counts as dead, so nothing new is told to it."""

    webhook: Webhook


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Somebody began a session with an API key."""

    key: ApiKey


@dataclass(frozen=True, slots=True)
class SignedOut:
    """Somebody ended a session."""

    key: ApiKey


@dataclass(frozen=True, slots=True)
class BreakerOpened:
    """A dependency failed too often, or a probe of it did."""

    circuit: Circuit


@dataclass(frozen=True, slots=True)
class BreakerProbed:
    """Its open time is over; some tasks were let through to try."""

    name: str


@dataclass(frozen=True, slots=True)
class BreakerClosed:
    """A probe succeeded, or the time was over for which a person had tripped it."""

    name: str


@dataclass(frozen=True, slots=True)
class BreakerTripped:
    """A person opened it."""

    circuit: Circuit


@dataclass(frozen=True, slots=True)
class BreakerReset:
    """A person closed it."""

    name: str


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    worker_id: str
    name: str
    queues: tuple[str, ...]
    task_types: tuple[str, ...]
    processes: int
    concurrency: int
    database: str


@dataclass(frozen=True, slots=True)
class WorkerStopping:
    worker_id: str
    running: int


@dataclass(frozen=True, slots=True)
class WorkerStopped:
    worker_id: str


@dataclass(frozen=True, slots=True)
class MetricsServed:
    """A worker answers scrapes here."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class RunnerStarted:
    worker_id: str
    pid: int


@dataclass(frozen=True, slots=True)
class RunnerDied:
    """A runner ended that was not asked to; `attempts` were inside. `evidence` is its exit code or signal."""

    worker_id: str
    pid: int
    evidence: str
    attempts: int


@dataclass(frozen=True, slots=True)
class RunnersResized:
    """A worker that scales by itself has so many runners from now on."""

    worker_id: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class RunnersFailing:
    """Several runners in a row died before they were ready; `evidence` is that of the last. They are tried again."""

    worker_id: str
    evidence: str


@dataclass(frozen=True, slots=True)
class AlertFired:
    alert: Alert


@dataclass(frozen=True, slots=True)
class AlertCleared:
    alert: Alert


@dataclass(frozen=True, slots=True)
class NoticeFailed:
    """A channel did not take what it was to be told of an alert; it is tried again unless somebody `gave_up`."""

    channel: str
    reason: str
    gave_up: bool


@dataclass(frozen=True, slots=True)
class ClockJumped:
    """Wall and monotonic time came apart: the clock was set, ahead by so many seconds (back, if they are negative)."""

    seconds: float


@dataclass(frozen=True, slots=True)
class BroughtBack:
    """After the clock was set back, so many tasks and breakers that were dated ahead of it are no longer."""

    tasks: int
    breakers: int


@dataclass(frozen=True, slots=True)
class StoreTroubled:
    """The database could not be used; `what` will be tried again."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class LogGrown:
    """The database's write-ahead log is too long, and cannot be cut off now."""

    size: int


@dataclass(frozen=True, slots=True)
class StoreSuspect:
    """Something about the store should be seen to, although it works: an unsafe library, a server that does not wait for
    its disk."""

    warning: str


@dataclass(frozen=True, slots=True)
class BrokerLost:
    """The broker at `name` cannot be used; until it can, work is found by looking."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class BrokerStrange:
    """So many messages were in the streams of the broker at `name` that are none of ours. Each is worth one look."""

    name: str
    messages: int


@dataclass(frozen=True, slots=True)
class BrokerFound:
    """The broker at `name` can be used (again)."""

    name: str


Event = TypeVar("Event")


class EventBus:
    """Hands each published event to the listeners of its class, in order of subscription.

    A listener that fails is logged and forgotten: telling others can never undo what is committed.
    """

    def __init__(self) -> None:
        self._listeners: dict[type, list[Callable[[Any], None]]] = defaultdict(list)
        self._log = structlog.get_logger("app.events")

    def subscribe(self, kind: type[Event], listener: Callable[[Event], None], *, first: bool = False) -> None:
        """`first`: before those who have subscribed until now."""
        listeners = self._listeners[kind]
        listeners.insert(0 if first else len(listeners), listener)

    def publish(self, event: object) -> None:
        for listener in self._listeners[type(event)]:
            try:
                listener(event)
            except Exception:
                self._log.exception("a listener failed", event_kind=type(event).__name__)
