"""Circuit breakers: rows that every process sees, counted and obeyed within the exchanges of workers, tripped and reset by
hand."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random

from app.core import breaker as core
from app.core.audit import Action, Actor, Deed
from app.core.breaker import Breaker, BreakerState, Circuit, Verdict
from app.core.errors import NotFound, OutboundFailed
from app.core.events import BreakerClosed, BreakerOpened, BreakerProbed, BreakerReset, BreakerTripped, EventBus
from app.core.lifecycle import Completed, Errored, Outcome, TimedOut
from app.core.outbound import status_in
from app.core.settings import Settings
from app.core.task import ClaimedTask, Task
from app.models import breakers as rows
from app.models.database import Connection, Database, retried
from app.models.queue import Head
from app.services.audit import note
from app.services.registry import ExecutorRegistry

LONGEST_REASON = 500
FIRST_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class BreakerReport:
    """One breaker as it is now: what is known of it, its state, the task types that need it, and how many of their tasks
    are ready and wait for it."""

    circuit: Circuit
    state: BreakerState
    task_types: tuple[str, ...]
    waiting: int


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """By which rule each breaker goes: that of the executors that declare it, or the one for hosts."""

    registry: ExecutorRegistry
    of_hosts: bool
    timeout_seconds: float
    outbound_timeout_seconds: float

    def get(self, name: str) -> Breaker | None:
        """None for one that nobody declares."""
        return core.HOST_RULE if self.is_of_host(name) else self.registry.breakers.get(name)

    def is_of_host(self, name: str) -> bool:
        return self.of_hosts and core.is_of_host(name)

    def host_behind(self, task: Task | ClaimedTask, tenant: str) -> str | None:
        """The breaker that a tenant has of the host that a task calls; None if it calls none, or hosts have no breakers."""
        executor = self.registry.get(task.task_type)
        if executor is None or not self.of_hosts or not task.payload:
            return None
        return executor.host_breaker(task.payload, tenant)

    def of_host(self, task: Task | ClaimedTask, circuits: Mapping[str, Circuit], now: datetime) -> Circuit | None:
        """What is known of the host that a task calls: by its tenant, or where a person holds back everybody."""
        tenants = {"", task.tenant}
        known = {tenant: circuits.get(self.host_behind(task, tenant) or "") for tenant in tenants}
        everybodys = known[""]
        return everybodys if everybodys and core.holds_everybody(everybodys, now) else known[task.tenant]

    def cut_short(self, task_type: str, outcome: Outcome, *, of_host: bool) -> bool:
        """Whether an attempt ran out of a time that is shorter than the usual one: whoever submits chooses that, and it says
        nothing of what others wait for. A host gets no longer than every request does."""
        if not isinstance(outcome, TimedOut):
            return False
        executor = self.registry.get(task_type)
        usual = (executor.timeout_seconds if executor is not None else None) or self.timeout_seconds
        return outcome.limit_seconds < (min(usual, self.outbound_timeout_seconds) if of_host else usual)


class Breakers:
    """The breakers of one store: those that executors declare, those of hosts that failed of late, and those of other task
    types while a person has tripped them."""

    def __init__(
        self,
        database: Database,
        bus: EventBus,
        registry: ExecutorRegistry,
        random: Random,
        settings: Settings,
    ) -> None:
        self._database = database
        self._bus = bus
        self._registry = registry
        limits = (settings.timeout_seconds, settings.outbound_timeout_seconds)
        self._rules = BreakerRules(registry, settings.host_breakers, *limits)
        self._random = random
        self._clock = database.clock()

    async def listed(self) -> list[BreakerReport]:
        """Every breaker that is declared or remembered, by name."""
        async with self._database.read() as connection:
            circuits = await rows.found(connection)
            names = sorted(circuits.keys() | self._registry.breakers.keys())
            return [await self._report(connection, circuits.get(name, Circuit(name))) for name in names]

    async def states(self) -> dict[str, BreakerState]:
        """The state of every breaker that is declared or remembered, by name. Counts nothing."""
        now = self._clock()
        async with self._database.read() as connection:
            circuits = await rows.found(connection)
        return {
            name: (
                BreakerState.CLOSED
                if _is_over(circuit := circuits.get(name, Circuit(name)), self._rules.get(name), now)
                else circuit.state_at(now)
            )
            for name in sorted(circuits.keys() | self._registry.breakers.keys())
        }

    async def behind(self, tasks: Collection[Task]) -> dict[int, tuple[Circuit, BreakerState]]:
        """By id the breaker that each of these tasks waits for, and its state: that of its type, or, where this lets it
        through, that of the host it calls, if its payload was read. Counts nothing."""
        async with self._database.read() as connection:
            circuits = await rows.found(connection)
        return {task.id: self._behind(task, circuits) for task in tasks}

    def _behind(self, task: Task, circuits: Mapping[str, Circuit]) -> tuple[Circuit, BreakerState]:
        executor = self._registry.get(task.task_type)
        name = executor.dependency if executor is not None else task.task_type
        of_type = self._as_it_is(circuits.get(name, Circuit(name)))
        known = self._rules.of_host(task, circuits, self._clock())
        if known is None or of_type[1] is not BreakerState.CLOSED:
            return of_type
        of_host = self._as_it_is(known)
        return of_type if of_host[1] is BreakerState.CLOSED else of_host

    def _as_it_is(self, circuit: Circuit) -> tuple[Circuit, BreakerState]:
        now = self._clock()
        if _is_over(circuit, self._rules.get(circuit.name), now):
            circuit = Circuit(circuit.name)
        return circuit, circuit.state_at(now)

    async def trip(self, name: str, reason: str, seconds: float | None, by: Actor | None = None) -> BreakerReport:
        """Open it for so long, or (None) until it is reset. Raises NotFound."""
        return await self._set(name, core.trip(name, reason, seconds, self._clock()), by)

    async def reset(self, name: str, by: Actor | None = None) -> BreakerReport:
        """Close it and forget its failures. Raises NotFound."""
        return await self._set(name, None, by)

    @retried
    async def _set(self, name: str, circuit: Circuit | None, by: Actor | None) -> BreakerReport:
        async with self._database.write() as connection:
            await rows.reserve(connection, [name])
            known = await rows.found(connection)
            if name not in known and not self._types_behind(name) and self._rules.get(name) is None:
                raise NotFound("breaker", name)
            if circuit is None:
                await rows.remove(connection, [name])
            else:
                await rows.save(connection, circuit)
            stored = (await rows.found(connection)).get(name, Circuit(name))
            report = await self._report(connection, stored)
            before, after = _audited(known.get(name, Circuit(name))), _audited(stored)
            action = Action.BREAKER_RESET if circuit is None else Action.BREAKER_TRIP
            await note(connection, by, self._clock(), Deed(action, f"breaker {name}", before, after))
        self._bus.publish(BreakerReset(name) if circuit is None else BreakerTripped(circuit))
        return report

    async def _report(self, connection: Connection, circuit: Circuit) -> BreakerReport:
        circuit, state = self._as_it_is(circuit)
        task_types = self._types_behind(circuit.name)
        waiting = await rows.waiting(connection, task_types) if state is not BreakerState.CLOSED else 0
        return BreakerReport(circuit, state, task_types, waiting)

    def _types_behind(self, name: str) -> tuple[str, ...]:
        return tuple(one.task_type for one in self._registry.values() if one.dependency == name)

    async def bring_back(self) -> int:
        """After the clock was set back, date nothing later than now: an open time lasts as long as it was to. Returns how
        many breakers were concerned."""
        now = self._clock()
        async with self._database.read() as connection:
            known = await rows.found(connection)
        if all(core.brought_back(circuit, now) == circuit for circuit in known.values()):
            return 0
        async with self._database.write() as connection:
            await rows.reserve(connection, list(known))
            known = await rows.found(connection)
            moved = [one for one in known.values() if core.brought_back(one, now) != one]
            for circuit in moved:
                await rows.save(connection, core.brought_back(circuit, now))
        return len(moved)

    async def forget_hosts(self) -> bool:
        """Drop what is known of hosts that nobody has called for a while, so that nobody has to look at it any more."""
        now = self._clock()
        async with self._database.read() as connection:
            old = _forgettable(await rows.found(connection), now)
        if old:
            async with self._database.write(durable=False) as connection:
                await rows.reserve(connection, old)
                await rows.remove(connection, set(old) & set(_forgettable(await rows.found(connection), now)))
        return False

    # For exchanges.

    def verdict(self, task: ClaimedTask, outcome: Outcome) -> Verdict | None:
        """What an attempt says of a dependency, None if nothing."""
        executor = self._registry.get(task.task_type)
        lease = (task.id, task.lease)
        match outcome:
            case Errored(dependency=str(name)) if name in self._registry.breakers:
                return Verdict(name, lease, f"{outcome.type}: {outcome.message}"[:LONGEST_REASON])
        host = self._rules.host_behind(task, task.tenant)
        if self._rules.cut_short(task.task_type, outcome, of_host=host is not None):
            return None
        if host is not None:
            heard = _word_of_host(outcome)
            return None if heard is None else Verdict(host, lease, heard or None)
        match outcome:
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
        circuits = await rows.found(connection) if looked_for or failed else {}
        names = self._in_doubt(circuits, verdicts, heads, now)
        if names:
            # Counts and probes are exact over all workers, so these are looked at again once nobody else can change them.
            await rows.reserve(connection, names)
            anew = await rows.found(connection)
            circuits = {name: one for name, one in circuits.items() if name not in names}
            circuits |= {name: one for name, one in anew.items() if name in names}
        board = Board(connection, self._rules, self._random, circuits, now)
        await board.judge(verdicts)
        return board

    def _in_doubt(
        self, circuits: Mapping[str, Circuit], verdicts: Sequence[Verdict], heads: Sequence[Head], now: datetime
    ) -> set[str]:
        """The breakers that this exchange may change. One that is open and stays so is only obeyed: it may be open for
        hours, in which not every exchange of every worker shall wait for the others."""
        told = {one.name for one in verdicts if one.trouble is not None or one.name in circuits}
        behind = {self._registry[head.task_type].dependency for head in heads} & circuits.keys()
        if not self._registry.calls_hosts.isdisjoint(head.task_type for head in heads):
            # Which hosts will be known once tasks are claimed. Then it is too late to wait for others: they may wait for us.
            behind |= {name for name in circuits if self._rules.is_of_host(name)}
            behind -= {name for name in behind if circuits[name].state is BreakerState.CLOSED and core.is_of_host(name)}
        return told | {name for name in behind if circuits[name].state_at(now) is not BreakerState.OPEN}


class Board:
    """Every breaker that is not in good health, within one transaction. `events` are to be published after its commit.

    `places`: how many attempts may begin behind each. `until`: when the first of those that hold something back may be tried.
    """

    def __init__(
        self,
        connection: Connection,
        rules: BreakerRules,
        random: Random,
        circuits: dict[str, Circuit],
        now: datetime,
    ) -> None:
        self._connection = connection
        self._rules = rules
        self._registry = rules.registry
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
            circuit, rule = self._circuits.pop(verdict.name, None), self._rules.get(verdict.name)
            assert rule is not None  # or there would be no verdict
            after = core.judge(circuit, rule, verdict, self._now, self._random)
            if after is not None and (circuit is not None or self._has_place(verdict.name)):
                self._circuits[verdict.name] = after
        for name, circuit in self._circuits.items():
            if circuit != before.get(name):
                await rows.save(self._connection, circuit)
                if circuit.state is BreakerState.OPEN:  # one that is open changes only by opening again
                    self.events.append(BreakerOpened(circuit))
        await self._forget({name: circuit for name, circuit in before.items() if name not in self._circuits})

    def _has_place(self, name: str) -> bool:
        """Whether one more breaker may be remembered; of hosts there may be only so many, and one of the same owner may make
        place."""
        if not core.is_of_host(name):
            return True
        owner = core.owner_of(name)
        hosts = [
            one for one in self._circuits.values() if core.is_of_host(one.name) and core.owner_of(one.name) == owner
        ]
        if len(hosts) < core.most_hosts(owner):
            return True
        leaving = core.crowded_out(hosts)
        if leaving is not None:
            del self._circuits[leaving.name]
        return leaving is not None

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
        return self._circuits[name], self._rules.get(name)

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

    async def put_off(self, claimed: Sequence[ClaimedTask]) -> list[tuple[ClaimedTask, datetime]]:
        """The tasks among these that the breaker of the host they call holds back, and when each is to look again. Costs
        nothing where no host failed of late."""
        if not any(self._rules.is_of_host(name) for name in self._circuits):
            return []
        held: list[tuple[ClaimedTask, datetime]] = []
        probes: dict[str, list[ClaimedTask]] = {}
        for task in claimed:
            circuit = self._rules.of_host(task, self._circuits, self._now)
            if circuit is None or circuit.state is BreakerState.CLOSED:
                continue
            if circuit.state_at(self._now) is BreakerState.HALF_OPEN:
                place = await self._place(circuit.name)
                if len(probes.get(circuit.name, ())) < place:
                    probes.setdefault(circuit.name, []).append(task)
                    continue
            held.append((task, core.put_off_until(circuit, self._now, self._random)))
        for name, tasks in probes.items():
            await self.let_through(name, tasks)
        return held

    async def _place(self, name: str) -> int:
        """How many probes of a host may begin."""
        if name not in self.places:
            circuit = self._circuits[name]
            if circuit.let_through:
                circuit = core.without_ended(circuit, await rows.running(self._connection, circuit.let_through))
                self._circuits[name] = circuit
            self.places[name] = core.places(circuit, core.HOST_RULE, self._now)
        return self.places[name]

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


def _forgettable(circuits: Mapping[str, Circuit], now: datetime) -> list[str]:
    return [name for name, one in circuits.items() if core.is_of_host(name) and core.forgettable(one, now)]


def _word_of_host(outcome: Outcome) -> str | None:
    """What an attempt says of the host that it called: what is wrong with it, nothing ("") or that nothing is known (None).
    A host that answers works, whatever it thinks of the request."""
    match outcome:
        case Completed():
            return ""
        case TimedOut():
            return f"an attempt ran longer than its limit of {outcome.limit_seconds:g} s"
        case Errored():
            status = status_in(outcome.message)
            if status is not None and status < FIRST_SERVER_ERROR:
                return ""
            if status is not None or outcome.dependency is not None or outcome.type == OutboundFailed.__name__:
                return f"{outcome.type}: {outcome.message}"[:LONGEST_REASON]
    return None


def _audited(circuit: Circuit) -> dict[str, object]:
    names = ("state", "reason", "failures", "trips", "open_until", "tripped_by_hand")
    return {name: getattr(circuit, name) for name in names}


def _is_over(circuit: Circuit, rule: Breaker | None, now: datetime) -> bool:
    """Whether a breaker has nothing to say any more. One that nobody declares has no probes: it closes with its time."""
    if rule is None:
        return circuit.state_at(now) is not BreakerState.OPEN
    return core.is_stale(circuit, rule, now)
