import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import httpx
import pytest

from app.core.breaker import (
    Breaker,
    BreakerState,
    Circuit,
    Verdict,
    brought_back,
    host_breaker,
    is_of_host,
    judge,
    let_through,
    owner_of,
    places,
    trip,
    without_ended,
)
from app.core.errors import PluginError

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RULE = Breaker(failures=3, window_seconds=60, open_seconds=10, probes=2, name="api")
PROBE, OTHER = (1, 1), (2, 5)

FAILED = Verdict("api", PROBE, "ConnectionError: refused")
WORKED = Verdict("api", PROBE)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def opened(**changes: Any) -> Circuit:
    values: dict[str, Any] = {"failures": 3, "window_started_at": NOW, "trips": 1, "opened_at": NOW}
    return Circuit("api", BreakerState.OPEN, **values | {"open_until": after(10)} | changes)


HALF_OPEN = replace(opened(), state=BreakerState.HALF_OPEN, let_through=(PROBE,))


def judged(circuit: Circuit | None, *verdicts: Verdict, at: datetime = NOW, rule: Breaker = RULE) -> Circuit | None:
    for verdict in verdicts:
        circuit = judge(circuit, rule, verdict, at, Random(1))
    return circuit


@pytest.mark.parametrize(
    ("verdicts", "state", "failures"),
    [
        ([FAILED], BreakerState.CLOSED, 1),
        ([FAILED, FAILED], BreakerState.CLOSED, 2),
        ([FAILED, FAILED, FAILED], BreakerState.OPEN, 3),
        ([FAILED, FAILED, WORKED, FAILED, FAILED], BreakerState.CLOSED, 2),
        ([FAILED, FAILED, FAILED, FAILED], BreakerState.OPEN, 3),
        ([FAILED, FAILED, FAILED, WORKED], BreakerState.OPEN, 3),
    ],
)
def test_so_many_failures_in_a_row_open_it(verdicts: list[Verdict], state: BreakerState, failures: int) -> None:
    circuit = judged(None, *verdicts)
    assert circuit is not None
    assert (circuit.state, circuit.failures) == (state, failures)
    assert circuit.reason == "ConnectionError: refused"


def test_a_success_leaves_nothing_to_remember() -> None:
    assert judged(None, WORKED) is None
    assert judged(None, FAILED, WORKED) is None


def test_failures_before_the_window_do_not_count() -> None:
    two = judged(None, FAILED, FAILED)
    in_time, late = (judged(two, FAILED, at=after(seconds)) for seconds in (60, 60.001))
    assert in_time is not None
    assert in_time.state is BreakerState.OPEN
    assert late == Circuit("api", failures=1, window_started_at=after(60.001), reason=FAILED.trouble)


@pytest.mark.parametrize(
    ("circuit", "verdict", "state"),
    [
        (HALF_OPEN, WORKED, None),
        (HALF_OPEN, FAILED, BreakerState.OPEN),
        # Attempts from before it opened say nothing of now.
        (HALF_OPEN, Verdict("api", OTHER), BreakerState.HALF_OPEN),
        (HALF_OPEN, Verdict("api", OTHER, "late"), BreakerState.HALF_OPEN),
        (opened(), WORKED, BreakerState.OPEN),
        (opened(), FAILED, BreakerState.OPEN),
    ],
)
def test_only_a_probe_decides_what_becomes_of_it(
    circuit: Circuit, verdict: Verdict, state: BreakerState | None
) -> None:
    found = judged(circuit, verdict, at=after(11))
    assert (found and found.state) == state
    if found is not None and verdict is not FAILED:
        assert found == circuit


def test_a_failed_probe_opens_it_for_twice_as_long_up_to_the_ceiling() -> None:
    rule = replace(RULE, ceiling_seconds=35)
    seconds = []
    circuit = judged(None, FAILED, FAILED, FAILED, rule=rule)
    for trips in range(1, 6):
        assert circuit is not None
        assert circuit.open_until is not None
        assert circuit.trips == trips
        seconds.append((circuit.open_until - NOW).total_seconds())
        circuit = judged(replace(circuit, state=BreakerState.HALF_OPEN, let_through=(PROBE,)), FAILED, rule=rule)
    for width, found in zip((10, 20, 35, 35, 35), seconds, strict=True):
        assert width <= found <= 1.1 * width
    assert len({rule.open_for_seconds(1, Random(seed)) for seed in range(9)}) == 9, "the wait is random"


def test_a_very_long_outage_overflows_nothing() -> None:
    assert 300 <= Breaker().open_for_seconds(10**6, Random(1)) <= 330  # ten times open_seconds


@pytest.mark.parametrize(
    ("circuit", "seconds", "expected"),
    [
        (Circuit("api", failures=1, window_started_at=NOW), 0, 2),
        (Circuit("api", failures=2, window_started_at=NOW), 0, 1),
        (Circuit("api", failures=1, window_started_at=NOW, let_through=(PROBE, OTHER)), 0, 0),
        (opened(), 9.999, 0),
        (opened(), 10, 2),
        (opened(open_until=None), 10**6, 0),
        (HALF_OPEN, 10, 1),
        (replace(HALF_OPEN, let_through=(PROBE, OTHER)), 10, 0),
    ],
)
def test_how_many_attempts_may_begin(circuit: Circuit, seconds: float, expected: int) -> None:
    assert places(circuit, RULE, after(seconds)) == expected


def test_what_is_let_through_after_the_open_time_are_probes() -> None:
    circuit = let_through(opened(), [PROBE], after(10))
    assert (circuit.state, circuit.let_through) == (BreakerState.HALF_OPEN, (PROBE,))
    circuit = let_through(circuit, [OTHER], after(11))
    assert circuit.let_through == (PROBE, OTHER)
    assert without_ended(circuit, {OTHER}).let_through == (OTHER,)


def test_what_a_person_trips_is_open_until_then_or_until_it_is_reset() -> None:
    assert trip("api", "works on it", 5, NOW).state_at(after(4.9)) is BreakerState.OPEN
    assert trip("api", "works on it", 5, NOW).state_at(after(5)) is BreakerState.HALF_OPEN
    assert trip("api", "works on it", None, NOW).state_at(after(10**8)) is BreakerState.OPEN


class Deceptive(type):
    """What user code may do to its exceptions."""

    def __getattribute__(cls, name: str) -> Any:
        if name in ("__mro__", "__module__", "__qualname__"):
            raise RuntimeError(f"no {name}")
        return super().__getattribute__(name)


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (httpx.ConnectError("no route"), True),
        (httpx.ReadTimeout("slow"), True),
        (httpx.HTTPStatusError("500", request=None, response=None), False),  # type: ignore[arg-type]
        (OSError("disk full"), False),
        (ValueError(), False),
        (SystemExit(3), False),
        (Deceptive("Deceptive", (Exception,), {})(), False),
    ],
)
def test_by_default_what_cannot_be_reached_counts(error: BaseException, counts: bool) -> None:
    assert Breaker().counts(error) is counts


def test_on_takes_classes_and_full_names() -> None:
    rule = Breaker(on=(KeyError, "httpx.HTTPStatusError"))
    assert rule.counts(KeyError())
    assert rule.counts(httpx.HTTPStatusError("500", request=None, response=None))  # type: ignore[arg-type]
    assert not rule.counts(ConnectionError())


@pytest.mark.parametrize(
    "fields",
    [
        {"failures": 0},
        {"probes": 0},
        {"window_seconds": 0},
        {"open_seconds": -1},
        {"ceiling_seconds": 1},
        {"on": (BaseException,)},
        {"on": (3,)},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(PluginError, match=r"Breaker: " + next(iter(fields))):
        Breaker(**fields)


@pytest.mark.parametrize("set_back", [3600, 86400])
def test_after_the_clock_was_set_back_it_stays_open_as_long_as_it_was_to(set_back: int) -> None:
    now = after(-set_back)
    assert brought_back(opened(), now) == opened(
        window_started_at=now, opened_at=now, open_until=now + timedelta(seconds=10)
    )
    by_hand = trip("api", "down", None, NOW)
    assert brought_back(by_hand, now) == replace(by_hand, opened_at=now)
    counting = Circuit("api", failures=1, window_started_at=NOW)
    assert brought_back(counting, now) == replace(counting, window_started_at=now)


def test_what_lies_in_the_past_is_left_as_it_is() -> None:
    for circuit in (opened(), HALF_OPEN, Circuit("api")):
        assert brought_back(circuit, after(-1)) == brought_back(circuit, after(5)) == circuit


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://API.example.com/x", "host:api.example.com:443"),
        ("http://api.example.com./x", "host:api.example.com:80"),
        ("http://api.example.com:443/x", "host:http:api.example.com:443"),
        ("https://api.example.com:80/x", "host:https:api.example.com:80"),
        ("http://api.example.com:8080/x", "host:http:api.example.com:8080"),
        ("https://api.example.com:8080/x", "host:https:api.example.com:8080"),
        ("nonsense", None),
    ],
)
def test_a_host_that_is_asked_in_another_way_is_another_host(url: str, name: str | None) -> None:
    assert host_breaker(url) == name


@pytest.mark.parametrize(
    ("url", "tenant", "owner"),
    [
        ("https://api.example.com/", "", ""),
        ("https://api.example.com/", "north", "north"),
        ("http://tenant:8080/", "", ""),
        ("http://tenant:8080/", "north", "north"),
        ("http://[2001:db8::443]:80/", "80", "80"),
        ("https://api.example.com/", "443:tenant:north", "443:tenant:north"),
    ],
)
def test_the_name_of_a_hosts_breaker_says_whose_it_is(url: str, tenant: str, owner: str) -> None:
    name = host_breaker(url, tenant)
    assert name is not None
    assert owner_of(name) == owner
    assert is_of_host(name)


def test_a_tenant_of_any_name_has_breakers_of_its_own_and_nobody_elses() -> None:
    tenants = ["", "n", "m", "n" * 64, "n" * 63 + "m", "n:443", "443:tenant:n"]
    urls = ["https://api.example.com/", "http://tenant/", f"https://{'a' * 70}.test/", "http://[2001:db8::1:443]/"]
    names = [host_breaker(url, tenant) for tenant in tenants for url in urls]
    assert len(set(names)) == len(names)
    assert all(name is not None and re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", name) for name in names)
    assert len({owner_of(str(name)) for name in names if name and ":tenant:" in name}) >= 6


def test_the_name_of_a_hosts_breaker_is_never_too_long() -> None:
    names = {host_breaker(f"{scheme}://{'a' * 70}.test:8080/") for scheme in ("http", "https")}
    assert len(names) == 2
    assert all(name is not None and len(name) <= 64 for name in names)
