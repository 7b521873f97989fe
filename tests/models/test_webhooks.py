from dataclasses import replace
from typing import Any

from app.core.task import Attempt, JsonText, Status
from app.core.webhook import Webhook
from app.models import queue, webhooks
from app.models.database import Connection, Database
from app.models.queue import Completion
from tests.conftest import FrozenClock
from tests.models.conftest import Claim, Insert
from tests.models.test_queue import complete


async def subscribed(connection: Connection, clock: FrozenClock, id_: str, **changes: Any) -> Webhook:
    asked: dict[str, Any] = {"tenant": "", "url": "https://example.com", "description": None, "events": ("completed",)}
    filters: dict[str, Any] = {"task_types": (), "queues": (), "tags": (), "secrets": ()}
    webhook = Webhook(id_, created_at=clock.forward(1), **asked | filters | changes)
    await webhooks.add(connection, webhook)
    return webhook


def switched_off(webhook: Webhook, clock: FrozenClock, reason: str | None = None) -> Webhook:
    return replace(webhook, switched_off_at=clock(), switched_off_reason=reason)


async def test_a_tenant_is_shown_its_own_subscriptions(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        ours = await subscribed(connection, clock, "a", tenant="acme")
        theirs = await subscribed(connection, clock, "b", tenant="umbrella")
        assert await webhooks.count(connection, "acme") == 1
        assert await webhooks.count(connection, "") == 0
        assert await webhooks.found(connection, "acme") == [ours]
        assert await webhooks.found(connection) == [ours, theirs]
        assert await webhooks.get(connection, "a", "acme") == await webhooks.get(connection, "a") == ours
        assert await webhooks.get(connection, "b", "acme") is None
        assert await webhooks.locked(connection, ["b", "c"]) == [theirs]


async def test_one_subscription_is_changed_or_removed_alone(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        a, b = [await subscribed(connection, clock, id_) for id_ in "ab"]
        off = switched_off(a, clock)
        await webhooks.save(connection, off)
        assert await webhooks.found(connection) == [off, b]
        assert await webhooks.switched_on(connection) == [b]
        await webhooks.remove(connection, "a")
        assert await webhooks.found(connection) == [b]


async def test_an_end_is_awaited_where_it_asked_or_a_subscription_is_on(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    await insert({}, {"webhook_url": "https://example.com"}, {}, {})
    claimed = await claim()

    async def awaited(connection: Connection, number: int) -> bool:
        task = claimed[number]
        ended = Completion(task.id, task.lease, JsonText("1"), clock())
        return (await queue.complete(connection, [ended]))[task.id, task.lease]

    async with database.write() as connection:
        await webhooks.save(connection, switched_off(await subscribed(connection, clock, "a"), clock))
        assert not await awaited(connection, 0), "nobody listens any more"
        assert await awaited(connection, 1)
        await subscribed(connection, clock, "b")
        assert await awaited(connection, 2)
        ends = {(end.id, end.asked, end.status) for end in await webhooks.ends(connection, [1, 2])}
        assert ends == {(1, False, Status.COMPLETED), (2, True, Status.COMPLETED)}


async def test_notices_are_listed_by_subscription(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    await insert(*[{}] * 4)
    (first,) = await claim(room=1)
    await complete(database, first)
    async with database.write() as connection:
        a, b = [await subscribed(connection, clock, id_) for id_ in "ab"]
        new = [
            (number, of, "task.completed", f"m{number}") for number, of in ((1, "a"), (2, "a"), (3, "b"), (4, "gone"))
        ]
        await webhooks.add_deliveries(connection, new)
        assert await webhooks.receivers(connection, [2, 3, 4]) == {2: a, 3: b}

        async def listed(*statuses: Status, before_id: int | None = None) -> list[int]:
            return [one.task_id for one in await webhooks.deliveries(connection, "a", statuses, 10, before_id)]

        assert await listed() == [2, 1]
        assert await listed(Status.COMPLETED) == [1]
        assert await listed(before_id=2) == [1]
        assert (one := await webhooks.delivery(connection, "a", 2)) is not None
        assert (one.task_id, one.message_id) == (2, "m2")
        assert await webhooks.delivery(connection, "a", 3) is None, "that one is of another"
        assert await webhooks.delivery(connection, "a", 9) is None


async def test_the_last_attempt_that_failed_is_each_tasks_own(
    database: Database, insert: Insert, clock: FrozenClock
) -> None:
    await insert({}, {}, {}, {})
    error = JsonText("{}")
    made = [
        Attempt(task_id, lease, lease, "error" if failed else "completed", "w", clock(), clock(), failed)
        for task_id, lease, failed in (
            (1, 1, error),
            (1, 2, error),
            (1, 3, None),
            (2, 1, error),
            (3, 1, None),
            (4, 2, error),
        )
    ]
    async with database.write() as connection:
        await queue.record_attempts(connection, made)
        found = await webhooks.last_attempts(connection, [1, 2, 3])
        assert found == {1: made[1], 2: made[3]}


async def test_subscriptions_are_counted_by_how_they_are(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        made = [await subscribed(connection, clock, id_) for id_ in "abcdefghij"]
        failing = {"failures": 1, "failing_since": clock()}
        changed = [
            *(replace(one, **failing) for one in made[1:3]),
            *(switched_off(one, clock) for one in made[3:6]),
            *(switched_off(replace(one, **failing), clock, "no answer") for one in made[6:]),
        ]
        for one in changed:
            await webhooks.save(connection, one)
        assert await webhooks.counts(connection) == (1, 2, 3, 4)
