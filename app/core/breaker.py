"""Circuit breakers: when tasks whose dependency is down are held back, and how it is tried again. Arithmetic only."""

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from operator import itemgetter
from random import Random

from app.core.clock import JUMP
from app.core.errors import PluginError
from app.core.outbound import USUAL_PORTS, host_in

REACHED_OVER_THE_NETWORK: tuple[type[Exception] | str, ...] = (ConnectionError, TimeoutError, "httpx.TransportError")
EXTRA = 0.1
"""An open time is up to this part longer, so that several breakers that opened together do not probe together."""

Lease = tuple[int, int]
"""(task id, lease): one attempt."""


_ANCESTRY_OF_CLASS, _MODULE_OF_CLASS, _NAME_OF_CLASS = (
    vars(type)[name].__get__ for name in ("__mro__", "__module__", "__qualname__")
)
"""Give the truth even where a metaclass of user code has its own idea of it."""


def _full_name(kind: type) -> str:
    module = _MODULE_OF_CLASS(kind)
    return f"{module}.{_NAME_OF_CLASS(kind)}" if isinstance(module, str) else ""


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Breaker:
    """When the dependency of an executor counts as down. Raises PluginError for what makes no sense.

    name            the dependency; several task types may share it. None means the task type
    failures        so many failures of the dependency open it, with no success between them ...
    window_seconds  ... and all within this time after the first
    open_seconds    how long it stays open; each time that it opens again without a success twice as long ...
    ceiling_seconds ... up to this, by default ten times `open_seconds`
    probes          how many attempts are let through at once afterwards. Their first success closes it, a failure opens it
    on              which exceptions are failures of the dependency: classes, or their full names where importing them
                    would be heavy ("httpx.TransportError"). An attempt that ran out of time is one in any
                    case, unless its task was given less of it than is usual
    """

    failures: int = 5
    window_seconds: float = 60.0
    open_seconds: float = 30.0
    probes: int = 1
    on: tuple[type[Exception] | str, ...] = REACHED_OVER_THE_NETWORK
    name: str | None = None
    ceiling_seconds: float | None = None

    def __post_init__(self) -> None:
        for field in ("failures", "probes"):
            if getattr(self, field) < 1:
                raise PluginError(f"Breaker: {field} must be at least 1, not {getattr(self, field)}")
        for field in ("window_seconds", "open_seconds"):
            if getattr(self, field) <= 0:
                raise PluginError(f"Breaker: {field} must be above 0, not {getattr(self, field)}")
        if self.ceiling_seconds is not None and self.ceiling_seconds < self.open_seconds:
            raise PluginError(f"Breaker: ceiling_seconds must be at least open_seconds, not {self.ceiling_seconds}")
        for kind in self.on:
            if not (isinstance(kind, str) or (isinstance(kind, type) and issubclass(kind, Exception))):
                raise PluginError(f"Breaker: on takes classes of exceptions and their names, not {kind!r}")

    def counts(self, error: BaseException) -> bool:
        """Whether an attempt that raised `error` failed because of the dependency."""
        if isinstance(error, tuple(kind for kind in self.on if not isinstance(kind, str))):
            return True
        return any(_full_name(kind) in self.on for kind in _ANCESTRY_OF_CLASS(type(error)))

    def open_for_seconds(self, trips: int, random: Random) -> float:
        """How long it stays open the `trips`th time in a row, from 1."""
        ceiling = 10 * self.open_seconds if self.ceiling_seconds is None else self.ceiling_seconds
        # 2 ** 62 is beyond any ceiling; without the bound a long outage would overflow a float.
        width: float = min(ceiling, self.open_seconds * 2.0 ** min(trips - 1, 62))
        return width * random.uniform(1.0, 1.0 + EXTRA)


@dataclass(frozen=True, slots=True)
class Circuit:
    """What is known of one breaker now. Where there is none, it is closed and nothing failed.

    failures           in a row, since `window_started_at`
    trips              how often in a row it opened, with no success between
    open_until         None while open: until somebody resets it
    let_through        attempts that were let out since it began to fail; in half-open state they are the probes
    """

    name: str
    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    window_started_at: datetime | None = None
    trips: int = 0
    opened_at: datetime | None = None
    open_until: datetime | None = None
    reason: str | None = None
    tripped_by_hand: bool = False
    let_through: tuple[Lease, ...] = ()

    def state_at(self, now: datetime) -> BreakerState:
        """The state, where nobody has touched it since its open time ended."""
        over = self.state is BreakerState.OPEN and self.open_until is not None and self.open_until <= now
        return BreakerState.HALF_OPEN if over else self.state


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one attempt says of a dependency: that it works, or (`trouble`) why it does not."""

    name: str
    lease: Lease
    trouble: str | None = None


HOST_RULE = Breaker(failures=5, window_seconds=60, open_seconds=15, ceiling_seconds=300)
"""For every host that tasks call."""
MOST_HOSTS, MOST_HOSTS_OF_A_TENANT = 100, 20
"""Remembered at a time, of each owner for itself: whoever submits tasks may invent names without end."""
LONGEST_HOLD_SECONDS = 60.0
"""A task that is put off looks again after this at the latest: somebody may have closed the breaker."""
PROBED_SECONDS = 5.0
"""How long is waited for a probe that is under way."""
_HOST = "host:"
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_OWNED = re.compile(r":[0-9]+:tenant:(?P<tenant>.+)")
"""What a host's breaker that is a tenant's has at its end. No name of a host has it: only an address has colons, and that no
letters beyond f."""


def host_breaker(url: str, tenant: str = "") -> str | None:
    """The name of the breaker of the host that a URL leads to, like `host:api.example.com:443`, with the scheme where
    the port does not tell it, like `host:http:api.example.com:8080`: who asks in the wrong way gets no answer, and says nothing
    of those who ask in the right one. None for no URL. One that would be too long, or has other characters, is shortened to
    a digest.

    Each tenant has its own, like `host:api.example.com:443:tenant:north`: a path of a host that fails is easily found, and
    would hold back the calls of all.
    """
    place = host_in(url)
    if place is None:
        return None
    scheme, host, port = place
    label = host if USUAL_PORTS.get(scheme) == port else f"{scheme}:{host}"
    owned = f":tenant:{tenant}" if tenant else ""
    hashed = f"{_HOST}{_digest(label, 32)}:{port}"
    names = (f"{_HOST}{label}:{port}{owned}", f"{hashed}{owned}", f"{hashed}:tenant:{_digest(tenant, 12)}")
    return next(name for name in names if _NAME.fullmatch(name))


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def owner_of(name: str) -> str:
    """The tenant, or what it was shortened to, whose the breaker of a host is; empty for everybody else's."""
    found = _OWNED.search(name)
    return found["tenant"] if found else ""


def most_hosts(owner: str) -> int:
    """How many hosts are remembered of the tenant, or (empty) of what belongs to none."""
    return MOST_HOSTS_OF_A_TENANT if owner else MOST_HOSTS


def holds_everybody(circuit: Circuit, now: datetime) -> bool:
    """Whether the breaker of a host that is no tenant's holds back tenants too: a person has said so. Otherwise it would be
    theirs to probe, and to open again."""
    return circuit.tripped_by_hand and circuit.state_at(now) is BreakerState.OPEN


def is_of_host(name: str) -> bool:
    """Whether a breaker is that of a host."""
    return name.startswith(_HOST)


def forgettable(circuit: Circuit, now: datetime) -> bool:
    """Whether the breaker of a host says nothing any more: its failures are old, or it has been half open for long with
    nobody asking."""
    if circuit.state is BreakerState.CLOSED:
        return is_stale(circuit, HOST_RULE, now)
    ceiling = timedelta(seconds=HOST_RULE.ceiling_seconds or 0)
    return circuit.open_until is not None and now - circuit.open_until > ceiling


def crowded_out(circuits: Iterable[Circuit]) -> Circuit | None:
    """Which of the hosts makes place for another one: of the closed the one that began to fail first. None if all are
    open: what is held back now matters more than what may come."""
    closed = [(one.window_started_at, one) for one in circuits if one.state is BreakerState.CLOSED]
    dated = [(began, one) for began, one in closed if began is not None]
    return min(dated, key=itemgetter(0))[1] if dated else None


def put_off_until(circuit: Circuit, now: datetime, random: Random) -> datetime:
    """When a task looks again that the breaker of its host does not let through: when that may be tried, not all at once."""
    until = (
        circuit.open_until if circuit.state_at(now) is BreakerState.OPEN else now + timedelta(seconds=PROBED_SECONDS)
    )
    longest = now + timedelta(seconds=LONGEST_HOLD_SECONDS)
    wait = min(until or longest, longest) - now
    return now + wait * random.uniform(1.0, 1.2)


def judge(circuit: Circuit | None, rule: Breaker, verdict: Verdict, now: datetime, random: Random) -> Circuit | None:
    """What a breaker becomes after one attempt. None: closed, with nothing to remember."""
    if circuit is None or circuit.state is BreakerState.CLOSED:
        return None if verdict.trouble is None else _count(circuit, rule, verdict, now, random)
    if circuit.state is BreakerState.OPEN or verdict.lease not in circuit.let_through:
        return circuit  # it began before the breaker opened, and says nothing of now
    return None if verdict.trouble is None else _open(circuit, rule, verdict.trouble, now, random)


def _count(circuit: Circuit | None, rule: Breaker, verdict: Verdict, now: datetime, random: Random) -> Circuit:
    if circuit is None or is_stale(circuit, rule, now):
        circuit = Circuit(verdict.name, window_started_at=now)
    circuit = replace(circuit, failures=circuit.failures + 1, reason=verdict.trouble)
    return _open(circuit, rule, verdict.trouble, now, random) if circuit.failures >= rule.failures else circuit


def _open(circuit: Circuit, rule: Breaker, reason: str | None, now: datetime, random: Random) -> Circuit:
    seconds = rule.open_for_seconds(circuit.trips + 1, random)
    return replace(
        circuit,
        state=BreakerState.OPEN,
        trips=circuit.trips + 1,
        opened_at=now,
        open_until=now + timedelta(seconds=seconds),
        reason=reason,
        tripped_by_hand=False,
        let_through=(),
    )


def is_stale(circuit: Circuit, rule: Breaker, now: datetime) -> bool:
    """Whether the failures it counted are too old to count."""
    started = circuit.window_started_at
    window = timedelta(seconds=rule.window_seconds)
    return circuit.state is BreakerState.CLOSED and (started is None or now - started > window)


def without_ended(circuit: Circuit, running: Collection[Lease]) -> Circuit:
    """The breaker once those that it let through and that are not `running` any more are left out."""
    return replace(circuit, let_through=tuple(lease for lease in circuit.let_through if lease in running))


def places(circuit: Circuit, rule: Breaker, now: datetime) -> int:
    """How many attempts may begin now, beside those that were let through.

    While it is closed and failures are on record, that is as many as it takes to open it: whatever else were claimed in
    doubt could only use up attempts.
    """
    match circuit.state_at(now):
        case BreakerState.OPEN:
            return 0
        case BreakerState.HALF_OPEN:
            most = rule.probes
        case BreakerState.CLOSED:
            most = rule.failures - circuit.failures
    return max(0, most - len(circuit.let_through))


def let_through(circuit: Circuit, claimed: Sequence[Lease], now: datetime) -> Circuit:
    """The breaker once these were let through too."""
    return replace(circuit, state=circuit.state_at(now), let_through=(*circuit.let_through, *claimed))


def brought_back(circuit: Circuit, now: datetime) -> Circuit:
    """The breaker after the clock was set back: what it dates later than now is taken to have happened now."""
    opened_at, until, window = circuit.opened_at, circuit.open_until, circuit.window_started_at
    if opened_at is not None and opened_at > now + JUMP:
        circuit = replace(circuit, opened_at=now, open_until=None if until is None else now + (until - opened_at))
    if window is not None and window > now + JUMP:
        circuit = replace(circuit, window_started_at=now)
    return circuit


def trip(name: str, reason: str, seconds: float | None, now: datetime) -> Circuit:
    """A breaker that a person opened, for some seconds or until it is reset."""
    until = None if seconds is None else now + timedelta(seconds=seconds)
    return Circuit(
        name, BreakerState.OPEN, trips=1, opened_at=now, open_until=until, reason=reason, tripped_by_hand=True
    )
