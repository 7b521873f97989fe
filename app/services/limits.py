"""Queues as operators steer them: paused and resumed, with limits that the claims of all workers and the submissions obey."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from app.core import limits as core
from app.core.audit import Action, Actor, Deed, difference
from app.core.errors import InvalidRequest, NotFound, QueueFull
from app.core.events import EventBus, QueueChanged
from app.core.limits import QueueRule
from app.core.task import ClaimedTask, NewTask
from app.models import limits as rows
from app.models import stats as stats_rows
from app.models.database import Connection, Database, retried
from app.models.dialects import has_many_writers
from app.models.queue import Head
from app.models.stats import QueueDepth
from app.services.audit import note
from app.services.tallies import Tallies

PLACES_UNLIMITED = 2**31 - 1


@dataclass(frozen=True, slots=True)
class QueueReport:
    """One queue as it is now: its rule, what waits and runs in it, how long the first ready task has been ready, and how many
    tasks a second have ended of late. `steered`: it has a rule because somebody made one."""

    rule: QueueRule
    depth: QueueDepth
    oldest_age_seconds: float | None
    drained_per_second: float
    steered: bool


def _audited(rule: QueueRule) -> dict[str, Any]:
    """What people set of a queue, not what is left of its rate."""
    return {name: value for name, value in asdict(rule).items() if name not in ("tokens", "refilled_at")}


class QueueLimits:
    """The queues of one store. A submission or retry asks no row for limits of depth: this process knows them, and hears within
    `poll_seconds` what another one has changed."""

    def __init__(self, database: Database, bus: EventBus, tallies: Tallies) -> None:
        self._database = database
        self._bus = bus
        self._tallies = tallies
        self._clock = database.clock()
        self._depths: dict[str, int] = {}

    async def listed(self, tenant: str = "") -> list[QueueReport]:
        """Every queue that has unfinished tasks or was ever steered, by name. Of a tenant, if it is named, only those in which
        it has unfinished tasks, and these alone are counted: how fast others' end is not for it."""
        async with self._database.read() as connection:
            rules = await rows.found(connection)
            depths = await stats_rows.queue_depths(connection, self._clock(), tenant)
            drained = {} if tenant else await self._tallies.drained(connection)
        return [
            QueueReport(
                rules.get(one.queue, QueueRule(one.queue)),
                one,
                self._age(one.oldest_ready_at),
                drained.get(one.queue, 0.0),
                one.queue in rules,
            )
            for one in depths
        ]

    def _age(self, ready_at: datetime | None) -> float | None:
        return None if ready_at is None else max(0.0, (self._clock() - ready_at).total_seconds())

    async def get(self, name: str) -> QueueReport:
        """One queue. Raises NotFound if it has no unfinished task and was never steered."""
        for report in await self.listed():
            if report.rule.name == name:
                return report
        raise NotFound("queue", name)

    @retried
    async def change(self, name: str, values: Mapping[str, Any], by: Actor | None = None) -> QueueReport:
        """Set what is given of `paused`, `max_running`, `rate_limit`, `rate_period_seconds` and `max_depth`; the queue is made
        if it is new. With a new rate all its starts are there."""
        given = dict(values)
        if "rate_limit" in given or "rate_period_seconds" in given:
            given |= {"tokens": None, "refilled_at": None}
        async with self._database.write() as connection:
            before = (await rows.found(connection, [name])).get(name, QueueRule(name))
            after = await rows.change(connection, name, given)
            changed = difference(_audited(before), _audited(after))
            await note(connection, by, self._clock(), Deed(Action.QUEUE_CHANGE, f"queue {name}", *changed))
        self._know(after)
        self._bus.publish(QueueChanged(before, after))
        return await self.get(name)

    # For submissions and retries.

    @property
    def depths(self) -> Mapping[str, int]:
        """The queues that have a largest depth, as far as this process knows."""
        return self._depths

    async def refresh(self) -> bool:
        """See which queues have a largest depth."""
        async with self._database.read() as connection:
            rules = await rows.found(connection)
        self._depths = {name: rule.max_depth for name, rule in rules.items() if rule.max_depth is not None}
        return False

    def _know(self, rule: QueueRule) -> None:
        if rule.max_depth is None:
            self._depths.pop(rule.name, None)
        else:
            self._depths[rule.name] = rule.max_depth

    def ensure_possible(self, tasks: Sequence[NewTask]) -> None:
        """Raise InvalidRequest where tasks that must be stored together are more than may ever wait in their queue."""
        counts = Counter(task.queue for task in tasks) if self._depths else {}
        for queue, count in counts.items():
            if count > self._depths.get(queue, count):
                message = f"tasks: {count} are for queue {queue}, in which at most {self._depths[queue]} may wait."
                raise InvalidRequest(message, [{"location": ["tasks"], "message": message, "type": "too_long"}])

    async def full(self, connection: Connection, queues: Sequence[str]) -> dict[int, QueueFull]:
        """Of tasks that are to wait in these queues from now on, those that there is no room for, by their places: the first
        ones fit as far as there is any. Costs nothing for queues without a largest depth."""
        wanted: dict[str, list[int]] = {}
        for place, queue in enumerate(queues):
            if queue in self._depths:
                wanted.setdefault(queue, []).append(place)
        refused: dict[int, QueueFull] = {}
        for queue, its_places in wanted.items():
            most = self._depths[queue]
            depth = await rows.depth(connection, queue, most)
            over = its_places[max(0, most - depth) :]
            if over:
                refused |= dict.fromkeys(over, await self._refusal(connection, queue, depth, most, len(its_places)))
        return refused

    async def _refusal(self, connection: Connection, queue: str, depth: int, most: int, count: int) -> QueueFull:
        drained = (await self._tallies.drained(connection)).get(queue, 0.0)
        seconds = core.seconds_until_room(min(count, most), depth, most, drained)
        return QueueFull(queue, depth, most, seconds)

    # For exchanges.

    async def board(self, connection: Connection, heads: Sequence[Head], now: datetime) -> "LimitBoard":
        """The limits of the queues that have work, for one exchange. Costs no statement where none of them has any: the
        heads say so."""
        names = {head.queue for head in heads if head.limited}
        rules = await rows.found(connection, names) if names else {}
        running = await rows.running(connection, names) if names else {}
        room = [name for name, rule in rules.items() if core.places(rule, running[name], now) != 0]
        if room and has_many_writers(connection):
            # Exact over all workers, so these are looked at again once nobody else can claim from them. Not those that are
            # full: they are only obeyed.
            rules |= await rows.locked(connection, room)
            running |= await rows.running(connection, room)
        return LimitBoard(connection, rules, running, now)


class LimitBoard:
    """The queues with limits, within one transaction. `until`: when the first that is held back by its rate goes on."""

    def __init__(
        self, connection: Connection, rules: Mapping[str, QueueRule], running: Mapping[str, int], now: datetime
    ) -> None:
        self._connection = connection
        self._rules = dict(rules)
        self._now = now
        found = {name: 0 if rule.paused else core.places(rule, running[name], now) for name, rule in rules.items()}
        self._places = {name: places for name, places in found.items() if places is not None}
        ends = [core.next_token_at(self._rules[name], now) for name, places in self._places.items() if places == 0]
        self.until = min((end for end in ends if end is not None), default=None)

    def passing(self, heads: Sequence[Head]) -> Sequence[Head]:
        """The heads that no limit holds back."""
        return [head for head in heads if self._places.get(head.queue, 1)] if self._places else heads

    def most(self, pairs: Sequence[tuple[str, str]]) -> dict[str, int]:
        """How many may be claimed of the queues among these pairs that have limits."""
        if not self._places:
            return {}
        return {queue: self._places[queue] for queue, _ in pairs if queue in self._places}

    async def take(self, claimed: Sequence[ClaimedTask]) -> None:
        """Remember what was claimed."""
        if not self._places:
            return
        started: dict[str, int] = {}
        for task in claimed:
            if task.queue in self._places:
                started[task.queue] = started.get(task.queue, 0) + 1
        for name, count in started.items():
            self._places[name] -= count
            before = self._rules[name]
            self._rules[name] = core.after_start(before, count, self._now)
            if self._rules[name] != before:
                await rows.spend(self._connection, self._rules[name])

    def room_in(self, queues: Collection[str]) -> bool:
        """Whether a queue among these has work left and places for it: for others, who may not know."""
        return any(self._places.get(name, 0) > 0 for name in queues)
