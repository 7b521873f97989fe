from datetime import UTC, datetime, timedelta

from app.core.tally import ALWAYS, HOUR, MINUTE, Durations, Tally
from app.models import tallies
from app.models.database import Connection, Database
from app.models.tallies import Range, Span

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def waited(*seconds: float) -> Durations:
    durations = Durations()
    durations.add(seconds)
    return durations


async def count(connection: Connection, begins_at: datetime, queue: str, seconds: int = MINUTE) -> None:
    await tallies.add(connection, {Span(seconds, begins_at, queue, "echo"): Tally(submitted=1, wait=waited(0.2))})


async def submitted(connection: Connection, span_seconds: int = MINUTE, **wanted: str) -> list[tuple[datetime, int]]:
    range_ = Range(span_seconds, NOON, NOON + timedelta(minutes=2), **wanted)
    steps = await tallies.summed(connection, range_, span_seconds, (), 10)
    return [(step.begins_at, step.tally.submitted) for step in steps]


async def test_what_is_counted_twice_is_added_up(database: Database) -> None:
    async with database.write() as connection:
        for queue in ("a", "a", "b"):
            await count(connection, NOON, queue, ALWAYS)
        await count(connection, NOON, "a")
        totals = await tallies.totals(connection)
        assert totals == {
            ("a", "echo"): Tally(submitted=2, wait=waited(0.2, 0.2)),
            ("b", "echo"): Tally(submitted=1, wait=waited(0.2)),
        }


async def test_pairs_are_told_apart_once(database: Database) -> None:
    async with database.write() as connection:
        for queue in ("a", "b"):
            await count(connection, NOON, queue, ALWAYS)
        for number in range(3):
            await count(
                connection, NOON + timedelta(minutes=number), "c"
            )  # which is read nowhere but in what always was
        assert await tallies.pairs(connection, 10) == {("a", "echo"), ("b", "echo")}
        assert len(await tallies.pairs(connection, 1)) == 1


async def test_a_range_has_what_begins_within_it(database: Database) -> None:
    async with database.write() as connection:
        for number in range(-1, 4):
            await count(connection, NOON + timedelta(minutes=number), "a")
        await count(connection, NOON, "b")
        await count(connection, NOON, "a", HOUR)
        minute = timedelta(minutes=1)
        assert await submitted(connection) == [(NOON, 2), (NOON + minute, 1)]
        assert await submitted(connection, queue="a") == [(NOON, 1), (NOON + minute, 1)]
        assert await submitted(connection, task_type="echo") == [(NOON, 2), (NOON + minute, 1)]
        assert await submitted(connection, task_type="other") == []
        assert await submitted(connection, HOUR) == [(NOON, 1)]


async def test_only_old_minutes_and_hours_are_pruned(database: Database) -> None:
    minute = timedelta(minutes=1)
    async with database.write() as connection:
        for number in range(4):
            await count(connection, NOON + number * minute, "a")
        for begins_at in (NOON, NOON + timedelta(hours=1)):
            await count(connection, begins_at, "a", HOUR)
        await count(connection, datetime.fromtimestamp(0, UTC), "a", ALWAYS)
        assert await tallies.prune(connection, NOON + 3 * minute, 2) == 3
        assert await submitted(connection, HOUR) == [], "the hour began before it too"
        assert await tallies.prune(connection, NOON + 3 * minute, 2) == 1
        assert await tallies.prune(connection, NOON + 3 * minute, 2) == 0
        rest = await tallies.summed(connection, Range(MINUTE, NOON, NOON + timedelta(days=1)), MINUTE, (), 10)
        assert [step.begins_at for step in rest] == [NOON + 3 * minute]
        assert await tallies.totals(connection) == {("a", "echo"): Tally(submitted=1, wait=waited(0.2))}
