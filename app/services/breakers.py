"""Circuit breakers: rows that every process sees, counted and obeyed within the exchanges of workers, tripped and reset by
hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random

from app.core import breaker as core
from app.core.breaker import Breaker, BreakerState, Circuit, Verdict
from app.core.errors import NotFound
from app.core.events import BreakerClosed, BreakerOpened, BreakerProbed, BreakerReset, BreakerTripped, EventBus
from app.core.lifecycle import Completed, Errored, Outcome, TimedOut
from app.core.task import ClaimedTask
from app.models import breakers as rows
from app.models.database import Connection, Database
from app.models.queue import Head
from app.services.executors import ExecutorRegistry

LONGEST_REASON = 500


@dataclass(frozen=True, slots=True)
class BreakerReport:
    """One breaker as it is now: what is known of it, its state, the task types that need it, and how many of their tasks
    are ready and wait for it."""

    circuit: Circuit
    state: BreakerState
    task_types: tuple[str, ...]
    waiting: int


class Breakers:
    """The breakers of one store: those that executors declare, and those of other task types while a person has tripped
    them."""

    def __init__(self, database: Database, bus: EventBus, registry: ExecutorRegistry, random: Random) -> None:
        self._database = database
        self._bus = bus
        self._registry = registry
        self._random = random
        self._clock = database.clock()

    async def listed(self) -> list[BreakerReport]:
        """Every breaker that is declared or remembered, by name."""
        async with self._database.read() as connection:
            circuits = await rows.found(connection)
            names = sorted(circuits.keys() | self._registry.breakers.keys())
            return [await self._report(connection, circuits.get(name, Circuit(name))) for name in names]

    async def trip(self, name: str, reason: str, seconds: float | None) -> BreakerReport:
        """Open it for so long, or (None) until it is reset. Raises NotFound."""
        return await self._set(name, core.trip(name, reason, seconds, self._clock()))

    async def reset(self, name: str) -> BreakerReport:
        """Close it and forget its failures. Raises NotFound."""
        return await self._set(name, None)

    async def _set(self, name: str, circuit: Circuit | None) -> BreakerReport:
        async with self._database.write() as connection:
            known = await rows.found(connection, for_change=True)
            if name not in known and not self._types_behind(name) and name not in self._registry.breakers:
                raise NotFound("breaker", name)
            if circuit is None:
                await rows.remove(connection, [name])
            else:
                await rows.save(connection, circuit)
            stored = (await rows.found(connection)).get(name, Circuit(name))
            report = await self._report(connection, stored)
        self._bus.publish(BreakerReset(name) if circuit is None else BreakerTripped(circuit))
        return report

    async def _report(self, connection: Connection, circuit: Circuit) -> BreakerReport:
        now = self._clock()
        rule = self._registry.breakers.get(circuit.name)
        if _is_over(circuit, rule, now):
            circuit = Circuit(circuit.name)
        task_types = self._types_behind(circuit.name)
        state = circuit.state_at(now)
        waiting = await rows.waiting(connection, task_types) if state is not BreakerState.CLOSED else 0
        return BreakerReport(circuit, state, task_types, waiting)

    def _types_behind(self, name: str) -> tuple[str, ...]:
        return tuple(one.task_type for one in self._registry.values() if one.dependency == name)

    # For exchanges.

    def verdict(self, task: ClaimedTask, outcome: Outcome) -> Verdict | None:
        """What an attempt says of a dependency, None if nothing."""
        executor = self._registry.get(task.task_type)
        lease = (task.id, task.lease)
        match outcome:
            case Errored(dependency=str(name)) if name in self._registry.breakers:
                return Verdict(name, lease, f"{outcome.type}: {outcome.message}"[:LONGEST_REASON])
            case TimedOut() if executor is not None and executor.breaker is not None:
                trouble = f"an attempt ran longer than its limit of {outcome.limit_seconds:g} s"
                return Verdict(executor.dependency, lease, trouble)
            case Completed() if executor is not None and executor.breaker is not None:
                return Verdict(executor.dependency, lease)
        return None

    async def board(
        self, connection: Connection, verdicts: Sequence[Verdict], heads: Sequence[Head], now: datetime
    ) -> "Board":
        """The breakers for one exchange, the verdicts counted. Costs no statement where nothing failed of late and nothing
        was tripped: the heads say so, or else, where nothing waits, is asked if the executors have breakers at all.
        """
        looked_for = heads[0].breakers if heads else bool(verdicts)
        failed = any(verdict.trouble is not None for verdict in verdicts)
        circuits = await rows.found(connection, for_change=True) if looked_for or failed else {}
        board = Board(connection, self._registry, self._random, circuits, now)
        await board.judge(verdicts)
        return board


class Board:
    """Every breaker that is not in good health, within one transaction. `events` are to be published after its commit.

    `places`: how many attempts may begin behind each. `until`: when the first of those that hold something back may be tried.
    """

    def __init__(
        self,
        connection: Connection,
        registry: ExecutorRegistry,
        random: Random,
        circuits: dict[str, Circuit],
        now: datetime,
    ) -> None:
        self._connection = connection
        self._registry = registry
        self._random = random
        self._circuits = circuits
        self._now = now
        self.events: list[object] = []
        self.places: dict[str, int] = {}
        self.until: datetime | None = None

    async def judge(self, verdicts: Sequence[Verdict]) -> None:
        """Count what attempts said of their dependencies."""
        before = dict(self._circuits)
        for verdict in verdicts:
            circuit, rule = self._circuits.pop(verdict.name, None), self._registry.breakers[verdict.name]
            after = core.judge(circuit, rule, verdict, self._now, self._random)
            if after is not None:
                self._circuits[verdict.name] = after
        for name, circuit in self._circuits.items():
            if circuit != before.get(name):
                await rows.save(self._connection, circuit)
                if circuit.state is BreakerState.OPEN:  # one that is open changes only by opening again
                    self.events.append(BreakerOpened(circuit))
        await self._forget({name: circuit for name, circuit in before.items() if name not in self._circuits})

    async def _forget(self, circuits: Mapping[str, Circuit]) -> None:
        if circuits:
            await rows.remove(self._connection, circuits)
        closed = [one for one in circuits.values() if one.state is not BreakerState.CLOSED]
        self.events += [BreakerClosed(circuit.name) for circuit in closed]

    async def passing(self, heads: Sequence[Head]) -> list[Head]:
        """The heads that no breaker holds back. Forgets breakers that have nothing to say any more."""
        concerned = self._circuits.keys() & {self.behind(head.task_type) for head in heads}
        over = {name: self._circuits[name] for name in concerned if _is_over(*self._named(name), self._now)}
        await self._forget(over)
        for name in over:
            del self._circuits[name]
        for name in concerned - over.keys():
            circuit, rule = self._named(name)
            if circuit.let_through:
                circuit = core.without_ended(circuit, await rows.running(self._connection, circuit.let_through))
                self._circuits[name] = circuit
            self.places[name] = core.places(circuit, rule, self._now) if rule else 0
        shut = {name for name, places in self.places.items() if places == 0}
        ends = [self._circuits[name].open_until for name in shut]
        self.until = min((end for end in ends if end is not None and end > self._now), default=None)
        return [head for head in heads if self.behind(head.task_type) not in shut]

    def _named(self, name: str) -> tuple[Circuit, Breaker | None]:
        return self._circuits[name], self._registry.breakers.get(name)

    def behind(self, task_type: str) -> str:
        """The breaker that tasks of this type wait for."""
        return self._registry[task_type].dependency

    def parts(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[Sequence[tuple[str, str]], str | None]]:
        """Pairs of queue and task type, put together by the breaker in doubt that they are behind; last those behind none."""
        parts: list[tuple[Sequence[tuple[str, str]], str | None]] = [
            ([pair for pair in pairs if self.behind(pair[1]) == name], name) for name in self.places
        ]
        parts.append(([pair for pair in pairs if self.behind(pair[1]) not in self.places], None))
        return [part for part in parts if part[0]]

    async def let_through(self, name: str | None, claimed: Sequence[ClaimedTask]) -> None:
        """Remember what was claimed past a breaker in doubt."""
        if name is None or not claimed:
            return
        before = self._circuits[name]
        self._circuits[name] = core.let_through(before, [(task.id, task.lease) for task in claimed], self._now)
        self.places[name] -= len(claimed)
        await rows.save(self._connection, self._circuits[name])
        if before.state is BreakerState.OPEN:
            self.events.append(BreakerProbed(name))


def _is_over(circuit: Circuit, rule: Breaker | None, now: datetime) -> bool:
    """Whether a breaker has nothing to say any more. One that nobody declares has no probes: it closes with its time."""
    if rule is None:
        return circuit.state_at(now) is not BreakerState.OPEN
    return core.is_stale(circuit, rule, now)
