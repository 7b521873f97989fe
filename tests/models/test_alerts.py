"""Every statement does its work on the rows that it is told of, and leaves those beside them."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from app.core.alerts import Alert, AlertState, Kind, Silence
from app.core.diagnosis import Severity
from app.core.notices import BACKOFF, CLAIMED
from app.core.task import JsonText
from app.models import alerts, chores, dead_letters, tasks
from app.models.alerts import AlertFilter
from app.models.database import Connection, Database
from tests.conftest import FrozenClock
from tests.models.conftest import Insert

MINUTE = timedelta(minutes=1)
HOLDING, FIRING, CLEARED = AlertState.HOLDING, AlertState.FIRING, AlertState.CLEARED


async def added(connection: Connection, now: datetime, state: AlertState = FIRING, **changes: Any) -> Alert:
    asked: dict[str, Any] = {
        "rule": "queue-old",
        "subject": "default",
        "queue": "default",
        "severity": Severity.WARNING,
        "what": "It waits.",
        "value": 2.0,
        "threshold": 1.0,
        "fired_at": None if state is HOLDING else now,
        "cleared_at": now if state is CLEARED else None,
    }
    alert = Alert(id=0, state=state, began_at=now, **asked | changes)
    id_ = await alerts.add(connection, alert)
    assert id_ is not None
    return replace(alert, id=id_)


async def test_one_turn_is_not_another(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        assert await alerts.take_turn(connection, "look", clock(), MINUTE)
        assert not await alerts.due_turn(connection, "look", clock.forward(1), MINUTE)
        assert await alerts.due_turn(connection, "prune", clock(), MINUTE)
        assert not await alerts.take_turn(connection, "look", clock(), MINUTE)
        assert await alerts.take_turn(connection, "prune", clock(), MINUTE)
        assert await alerts.take_turn(connection, "look", clock.forward(60), MINUTE)


async def test_of_one_rule_and_subject_one_alert_is_active(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        first = await added(connection, clock())
        assert await alerts.add(connection, replace(first, what="Again.")) is None
        other = await added(connection, clock(), HOLDING, subject="other")
        await added(connection, clock(), CLEARED, subject="third")
        assert await alerts.active(connection) == [first, other]


async def test_an_alert_is_saved_only_over_the_state_it_was_read_in(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        alert, beside = await added(connection, clock()), await added(connection, clock(), subject="other")
        cleared = replace(alert, state=CLEARED, cleared_at=clock())
        assert not await alerts.save(connection, cleared, HOLDING)
        assert await alerts.active(connection) == [alert, beside]
        assert await alerts.save(connection, cleared, FIRING)
        assert await alerts.active(connection) == [beside]


async def test_only_what_never_fired_is_forgotten(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        firing = await added(connection, clock())
        gone, kept = [await added(connection, clock(), HOLDING, subject=name) for name in ("gone", "kept")]
        await alerts.forget(connection, [firing.id, gone.id])
        assert await alerts.active(connection) == [firing, kept]


async def test_history_has_what_fired_and_was_asked_for(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        first = await added(connection, clock(), CLEARED)
        second = await added(connection, clock(), queue="mail", rule="failures")
        await added(connection, clock(), HOLDING, subject="third", queue="mail", rule="failures")

        async def found(before_id: int | None = None, **wanted: Any) -> list[Alert]:
            return await alerts.history(connection, AlertFilter(**wanted), 10, before_id)

        assert await found() == [second, first]
        assert await found(rule="failures") == [second]
        assert await found(queue="mail") == [second]
        assert await found(before_id=second.id) == [first]


async def test_only_what_cleared_long_ago_is_pruned(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        for _ in range(3):
            await added(connection, clock.forward(1), CLEARED)
        firing = await added(connection, clock())
        assert await alerts.prune(connection, clock(), 1) == 1
        assert await alerts.prune(connection, clock(), 10) == 1
        assert [one.state for one in await alerts.history(connection, AlertFilter(), 10)] == [FIRING, CLEARED]
        assert await alerts.active(connection) == [firing]


async def test_dead_letters_are_counted_from_when_they_failed(
    database: Database, insert: Insert, clock: FrozenClock
) -> None:
    over = clock() + MINUTE
    await insert(*[{"expires_at": over}] * 5, {})
    async with database.write() as connection:
        error, fingerprint = JsonText('{"type":"Expired"}'), "0" * 16
        await chores.expire(connection, [1], over, error, fingerprint)
        await chores.expire(connection, [2, 3, 4], over + MINUTE, error, fingerprint)
        assert await dead_letters.resolve(connection, [4], over + MINUTE, None) == [4]
        assert await tasks.cancel_waiting(connection, 5, over + MINUTE)
        assert await alerts.dead_letters_since(connection, over) == 2
        assert await alerts.dead_letters_since(connection, over - MINUTE) == 3


async def told(connection: Connection, alert: Alert, now: datetime, *channels: str, kind: Kind = Kind.FIRED) -> None:
    await alerts.add_notices(connection, alert.id, kind, channels, "{}", now)


async def test_what_was_told_of_an_alert_is_told_of_no_other(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        alert, other = await added(connection, clock()), await added(connection, clock(), subject="other")
        await told(connection, alert, clock(), "slack", "mail")
        await told(connection, other, clock(), "webhook")
        assert await alerts.channels_told(connection, alert.id) == ["mail", "slack"]
        assert [one.channel for one in await alerts.deliveries(connection, [alert.id])] == ["slack", "mail"]
        assert [one.alert_id for one in await alerts.deliveries(connection, [other.id])] == [other.id]


async def test_a_notice_waits_until_it_is_due_for_us_and_the_first(database: Database, clock: FrozenClock) -> None:
    ceiling = timedelta(seconds=BACKOFF.ceiling_seconds)
    async with database.write() as connection:
        alert, other = await added(connection, clock()), await added(connection, clock(), subject="other")
        await told(connection, alert, clock(), "mail", "slack")
        await told(connection, alert, clock(), "mail", kind=Kind.CLEARED)
        await told(connection, other, clock(), "mail")

        async def waiting(*channels: str, now: datetime | None = None) -> list[int]:
            found = await alerts.unsent(connection, channels, now or clock(), 10)
            return [one.id - before for one in found]

        before = (await alerts.unsent(connection, ["mail"], clock(), 1))[0].id - 1

        # Of each alert and channel the first one: neither another's nor what went out already stands before it.
        assert await waiting("mail", "slack") == [1, 2, 4]
        assert await waiting("mail") == [1, 4]
        assert await waiting("mail", now=clock() - MINUTE) == []
        assert await waiting("mail", now=clock() - ceiling - MINUTE) == [1, 4], "the clock was set back"
        first = (await alerts.unsent(connection, ["mail"], clock(), 1))[0]
        claimed = await alerts.claim(connection, first, clock())
        assert claimed is not None
        assert await waiting("mail") == [4], "it is being sent"
        assert await waiting("mail", now=clock() + CLAIMED) == [1, 4]
        assert await alerts.sent(connection, claimed, clock())
        assert await waiting("mail") == [3, 4]


async def test_one_sender_has_a_notice_and_only_that(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        alert, other = await added(connection, clock()), await added(connection, clock(), subject="other")
        await told(connection, alert, clock(), "mail")
        await told(connection, other, clock(), "mail")
        first, second = await alerts.unsent(connection, ["mail"], clock(), 10)
        ours = await alerts.claim(connection, first, clock())
        assert ours == replace(first, lease=1, attempts=1)
        assert await alerts.claim(connection, first, clock() + CLAIMED) is None, "it was claimed since it was read"
        assert await alerts.claim(connection, ours, clock()) is None, "somebody sends it now"
        assert await alerts.unsent(connection, ["mail"], clock(), 10) == [second]
        theirs = await alerts.claim(connection, ours, clock() + CLAIMED)
        assert theirs == replace(ours, lease=2, attempts=2)
        assert not await alerts.sent(connection, ours, clock())
        assert not await alerts.put_off(connection, ours, "late", clock())
        assert not await alerts.give_up(connection, ours, "late", clock())
        assert await alerts.give_up(connection, theirs, "no", clock())
        assert not await alerts.sent(connection, theirs, clock()), "it has ended"
        assert await alerts.claim(connection, theirs, clock() + 2 * CLAIMED) is None, "it has ended"
        states = [(one.state, one.error) for one in await alerts.deliveries(connection, [alert.id, other.id])]
        assert states == [("given_up", "no"), ("waiting", None)]


async def test_a_silence_ends_alone(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        short, long, longer = [
            await alerts.add_silence(connection, Silence(0, None, None, clock() + minutes * MINUTE, "", clock(), "ann"))
            for minutes in (1, 2, 3)
        ]
        clock.forward(60)
        assert await alerts.silences(connection, clock()) == [long, longer]
        assert await alerts.remove_silence(connection, short.id, clock()) is None, "it is over"
        assert await alerts.remove_silence(connection, long.id, clock()) == long
        assert await alerts.silences(connection, clock()) == [longer]
        await alerts.prune_silences(connection, clock() + timedelta(seconds=1))
        assert await alerts.silences(connection, clock() - MINUTE) == [longer]
