"""Rules, and what becomes of an alert: facts in, alerts out."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.core import notices
from app.core.alerts import (
    MOST_SUBJECTS,
    RULES,
    Alert,
    AlertState,
    BreakerSeen,
    Kind,
    Patience,
    QueueSeen,
    Sight,
    Silence,
    Thresholds,
    Trouble,
    WebhookSeen,
    WorkerSeen,
    begun,
    followed,
    found,
    to_tell,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OVER = Thresholds(300, 0.1, 5, 100, 10, 60)
PATIENCE = Patience(timedelta(seconds=60), timedelta(seconds=300))
TROUBLE = Trouble("mail", "Old.", 400.0, 300.0, "mail")
RULE = RULES[0]


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def worker(name: str, beat: float, started: float = -10_000, id: str = "") -> WorkerSeen:  # noqa: A002 as the field
    return WorkerSeen(id or f"{name}-1", name, "host", at(started), at(beat))


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({}, []),
        ({"queues": (QueueSeen("mail", oldest_age_seconds=301),)}, [("queue-old", "mail")]),
        ({"queues": (QueueSeen("mail", oldest_age_seconds=300),)}, []),
        ({"queues": (QueueSeen("mail", paused=True, oldest_age_seconds=9999),)}, []),
        ({"queues": (QueueSeen("mail", ended=50, failed=5),)}, [("failures", "mail")]),
        ({"queues": (QueueSeen("mail", ended=51, failed=5),)}, []),
        ({"queues": (QueueSeen("mail", ended=4, failed=4),)}, []),
        ({"queues": (QueueSeen("mail", paused=True, ended=5, failed=5),)}, [("failures", "mail")]),
        ({"dead_letters": 100}, [("dead-letters", "")]),
        ({"dead_letters": 99}, []),
        ({"dead_letters_lately": 10}, [("dead-letters-grow", "")]),
        ({"dead_letters_lately": 9}, []),
        ({"workers": (worker("a", -61),)}, [("worker-silent", "a-1")]),
        ({"workers": (worker("a", -60),)}, []),
        ({"workers": (worker("a", -61), worker("a", -1, started=-30, id="a-2"))}, []),
        ({"workers": (worker("a", -61), worker("a", -1, started=-500, id="a-2"))}, [("worker-silent", "a-1")]),
        ({"workers": (worker("a", -61), worker("b", -1, started=-30))}, [("worker-silent", "a-1")]),
        ({"dead_webhooks": (WebhookSeen("wh1", "hooks.example.com", "410"),)}, [("webhook-dead", "wh1")]),
        ({"open_breakers": (BreakerSeen("bank", "ConnectionError: no", 3),)}, [("breaker-open", "bank")]),
    ],
)
def test_each_rule_finds_its_trouble_and_nothing_else(seen: dict[str, object], expected: list[tuple[str, str]]) -> None:
    assert list(found(Sight(NOW, **seen), OVER)) == expected  # type: ignore[arg-type]


def test_every_rule_is_tried_above() -> None:
    cases = test_each_rule_finds_its_trouble_and_nothing_else.pytestmark[0].args[1]
    assert {rule for _, expected in cases for rule, _ in expected} == {rule.name for rule in RULES}


def test_a_rule_that_is_off_finds_nothing() -> None:
    sight = Sight(NOW, dead_letters=1000, dead_letters_lately=1000)
    assert list(found(sight, OVER, off=("dead-letters",))) == [("dead-letters-grow", "")]


def test_of_a_thousand_queues_the_worst_are_told() -> None:
    queues = tuple(QueueSeen(f"q{number}", oldest_age_seconds=1000 + number) for number in range(1000))
    subjects = [subject for _, subject in found(Sight(NOW, queues), OVER)]
    assert len(subjects) == MOST_SUBJECTS
    assert subjects[0] == "q999"


def lived(*seen: tuple[float, bool], patience: Patience = PATIENCE) -> list[str | None]:
    """The state after each look at a moment, with trouble or without; None where there is no alert."""
    alert: Alert | None = None
    states: list[str | None] = []
    for seconds, trouble in seen:
        if alert is None or alert.state is AlertState.CLEARED:
            alert = begun(RULE, TROUBLE, at(seconds), patience) if trouble else None
        else:
            alert = followed(alert, TROUBLE if trouble else None, at(seconds), patience)
        states.append(None if alert is None else alert.state.value)
    return states


def test_it_fires_after_holding_and_clears_after_a_calm() -> None:
    seen = [(0, True), (59, True), (60, True), (100, False), (399, False), (400, False), (415, False)]
    assert lived(*seen) == ["holding", "holding", "firing", "firing", "firing", "cleared", None]


def test_what_passes_quickly_never_fires() -> None:
    assert lived((0, True), (30, False), (45, True), (90, False)) == ["holding", None, "holding", None]


def test_what_comes_and_goes_fires_once() -> None:
    seen = [(number * 100.0, number % 3 != 2) for number in range(40)]
    states = lived(*seen)
    assert states[:2] == ["holding", "firing"]
    assert set(states[1:]) == {"firing"}


def test_without_patience_it_fires_and_clears_at_once() -> None:
    none = Patience(timedelta(0), timedelta(0))
    assert lived((0, True), (1, False), (2, True), patience=none) == ["firing", "cleared", "firing"]


def test_a_clock_that_was_set_back_holds_nothing_for_hours() -> None:
    assert lived((3600, True), (0, True), (60, True), (3600, False), (90, False), (390, False)) == [
        *("holding", "holding", "firing", "firing", "firing", "cleared"),
    ]


def test_it_says_what_is_seen_now() -> None:
    alert = followed(begun(RULE, TROUBLE, NOW, PATIENCE), replace(TROUBLE, what="Older.", value=9.0), at(5), PATIENCE)
    assert alert is not None
    assert (alert.what, alert.value, alert.began_at) == ("Older.", 9.0, NOW)


FIRING = replace(begun(RULE, TROUBLE, NOW, PATIENCE), state=AlertState.FIRING, fired_at=NOW)
CLEARED = replace(FIRING, state=AlertState.CLEARED, cleared_at=at(9))


def silence(rule: str | None, queue: str | None) -> Silence:
    return Silence(1, rule, queue, at(60), "", NOW, "")


@pytest.mark.parametrize(
    ("alert", "silences", "told"),
    [
        (replace(FIRING, state=AlertState.HOLDING), [], None),
        (FIRING, [], Kind.FIRED),
        (replace(FIRING, told_at=NOW), [], None),
        (FIRING, [silence(RULE.name, None)], None),
        (FIRING, [silence(None, "mail")], None),
        (FIRING, [silence(None, None)], None),
        (FIRING, [silence(RULE.name, "other"), silence("failures", "mail")], Kind.FIRED),
        (CLEARED, [], None),
        (replace(CLEARED, told_at=NOW), [], Kind.CLEARED),
        (replace(CLEARED, told_at=NOW), [silence(None, None)], Kind.CLEARED),
    ],
)
def test_who_heard_that_it_fires_hears_that_it_is_over(
    alert: Alert, silences: list[Silence], told: Kind | None
) -> None:
    assert to_tell(alert, silences) is told


def test_a_notice_says_the_same_to_each_channel() -> None:
    alert = replace(FIRING, id=7, what="<b>Old & slow</b>\n\tagain")
    text = notices.told(alert, Kind.FIRED, at(1))
    told = json.loads(text)
    assert (told["type"], told["timestamp"], told["data"]["id"]) == ("alert.fired", "2026-01-02T03:04:06Z", 7)
    assert notices.headline(text) == "[FIRING] queue-old mail: <b>Old & slow</b> again"
    assert json.loads(notices.slack_body(text)) == {
        "text": "[FIRING] queue-old mail: &lt;b&gt;Old &amp; slow&lt;/b&gt; again"
    }
    assert "threshold: 300.0" in notices.mail_body(text)


def test_a_test_says_that_nothing_is_wrong() -> None:
    text = notices.told_for_test(NOW)
    assert notices.headline(text).startswith("[Test] test: This is a test")
    assert json.loads(text)["type"] == "alert.test"
