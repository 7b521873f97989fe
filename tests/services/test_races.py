"""Two who want the same at the same time, step by step: the first has done all it does and has not committed yet, the second
goes as far as it gets, then the first commits.

On SQLite the second waits for the only write lock; on PostgreSQL for a row at most, or for nobody. What comes of it must be the
same: one of them was first.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from app.core.breaker import BreakerState
from app.core.errors import Conflict, IdempotencyMismatch, InvalidRequest, NotFound, StoreUnavailable, UniqueKeyTaken
from app.core.file import StoredFile
from app.core.lifecycle import Cancelled, Completed, Edit, Errored
from app.core.settings import Settings
from app.core.task import ClaimedTask, JsonText, Status
from app.models import tasks as task_rows
from app.models.database import Database, retried
from app.models.dead_letters import DeadFilter
from app.services.checker import Checker
from app.services.queue import Wish
from app.services.settling import Ended
from app.services.submissions import Submission
from app.services.wiring import Services
from tests.conftest import FrozenClock, until
from tests.services.conftest import Claim, Settle, Submit, lose_leases
from tests.stores import Stores

DONE = Completed(JsonText("1"))
Second = Callable[[], Awaitable[Any]]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"executor_modules": ("tests.sample_executors", "tests.breaker_executors"), "database_connections": 8}
    )


@pytest.fixture(autouse=True)
async def _nothing_is_broken(services: Services, clock: FrozenClock) -> AsyncIterator[None]:
    await lose_leases(services, clock)  # from now on a sweep knows what it looks at
    yield
    findings = [one async for one in Checker(services.database).findings() if one.broken]
    assert findings == []


class Actor:
    """A call that stops when all of its transaction is done but the commit."""

    def __init__(self, database: Database, call: Coroutine[Any, Any, Any]) -> None:
        self._database = database
        self._reached, self._may_commit = asyncio.Event(), asyncio.Event()
        self._call = call

    async def start(self) -> None:
        store = self._database._store
        writing = store.writing

        @asynccontextmanager
        async def held(*, durable: bool) -> AsyncIterator[Any]:
            store.writing = writing  # type: ignore[method-assign]  # only the first transaction from now on
            async with writing(durable=durable) as connection:
                try:
                    yield connection
                finally:  # or before it takes everything back
                    self._reached.set()
                    await self._may_commit.wait()

        store.writing = held  # type: ignore[method-assign]
        self._task = asyncio.create_task(self._call)
        arrived = asyncio.create_task(self._reached.wait())
        await asyncio.wait({self._task, arrived}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        arrived.cancel()
        assert not self._task.done(), f"ended before its commit: {self._task}"

    async def commit(self) -> Any:
        self._may_commit.set()
        return await self._task


@pytest.fixture
async def race(services: Services, stores: Stores) -> AsyncIterator[Callable[[Any, Any], Awaitable[tuple[Any, Any]]]]:
    """Runs two calls against each other; gives what each returned or raised."""
    actors: list[Actor] = []

    async def run(first: Coroutine[Any, Any, Any], second: Coroutine[Any, Any, Any]) -> tuple[Any, Any]:
        actor = Actor(services.database, first)
        actors.append(actor)
        await actor.start()
        other = asyncio.create_task(second)
        await _gets_as_far_as_it_can(services.database, stores, other)
        one = await asyncio.gather(actor.commit(), return_exceptions=True)
        return one[0], (await asyncio.gather(other, return_exceptions=True))[0]

    yield run
    for actor in actors:
        actor._may_commit.set()


async def _gets_as_far_as_it_can(database: Database, stores: Stores, task: asyncio.Task[Any]) -> None:
    """Wait until the task has ended or waits for a lock."""
    if database.path is not None:
        for _ in range(20):  # in one process there is one turn to write, and it is taken
            await asyncio.sleep(0)
        return
    server = await asyncpg.connect(stores.straight(database._store._dsn))  # type: ignore[attr-defined]
    try:

        async def waits() -> bool:
            asked = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return task.done() or bool(await server.fetchval(asked))

        await until(waits)
    finally:
        await server.close()


def on_postgres(services: Services) -> bool:
    return services.database.path is None


async def status(services: Services, task_id: int) -> Status:
    return (await services.tasks.get(task_id)).status


def ids(claimed: list[ClaimedTask]) -> list[int]:
    return [one.id for one in claimed]


# Claims.


async def test_two_claims_never_give_out_one_task(services: Services, submit: Submit, claim: Claim, race: Any) -> None:
    wanted = [await submit() for _ in range(5)]
    first, second = await race(claim(room=2, worker="a"), claim(room=2, worker="b"))
    assert (ids(first), ids(second)) == (wanted[:2], wanted[2:4])


async def test_who_claims_more_than_is_left_over_gets_the_rest_and_looks_again(
    services: Services, submit: Submit, claim: Claim, race: Any
) -> None:
    wanted = [await submit() for _ in range(3)]
    queue = services.queue
    choose = lambda heads: [Wish(tuple((head.queue, head.task_type) for head in heads), 5)]  # noqa: E731
    first, second = await race(claim(room=5, worker="a"), queue.exchange("b", [], choose))
    assert ids(first) == wanted
    assert second.claimed == ()
    if on_postgres(services):  # saw the tasks wait, and others have them: they might be free again soon
        assert second.next_due_at - services.database.clock()() < timedelta(seconds=1)


async def test_an_edited_task_is_not_claimed_for_what_it_was(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock, race: Any
) -> None:
    task_id = await submit()
    later = Edit({"scheduled_at": clock() + timedelta(hours=1)})
    edited, claimed = await race(services.tasks.edit(task_id, later), claim())
    assert (edited.status, claimed) == (Status.SCHEDULED, [])


async def test_a_cancelled_task_is_not_claimed_and_a_claimed_one_is_asked_to_stop(
    services: Services, submit: Submit, claim: Claim, race: Any
) -> None:
    task_id = await submit()
    cancelled, claimed = await race(services.tasks.cancel(task_id), claim())
    assert (cancelled.status, claimed) == (Status.CANCELLED, [])
    task_id = await submit()
    claimed, cancelled = await race(claim(), services.tasks.cancel(task_id))
    assert ids(claimed) == [task_id]
    assert (cancelled.status, cancelled.cancel_requested_at is not None) == (Status.RUNNING, True)


async def test_two_who_promote_get_each_due_task_once(
    services: Services, submit: Submit, clock: FrozenClock, race: Any
) -> None:
    for _ in range(3):
        await submit(delay_seconds=5.0)
    clock.forward(10)
    await race(services.chores.promote(), services.chores.promote())
    assert (await services.limits.listed())[0].depth.ready == 3


# The end of an attempt.


async def test_a_sweep_and_a_late_end_are_one_end(
    services: Services, submit: Submit, claim: Claim, settle: Settle, clock: FrozenClock, race: Any
) -> None:
    task_id = await submit()
    (task,) = await claim()
    clock.forward(31)
    await race(services.chores.sweep(), settle(task, DONE))
    assert [one.outcome for one in await services.tasks.attempts(task_id)] == ["lost"]
    task_id = await submit()
    (task,) = [one for one in await claim() if one.id == task_id]
    clock.forward(31)
    await race(settle(task, DONE), services.chores.sweep())
    assert [one.outcome for one in await services.tasks.attempts(task_id)] == ["completed"]


async def test_a_renewal_saves_a_lease_from_the_sweep_that_came_later(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock, race: Any
) -> None:
    task_id = await submit()
    (task,) = await claim()
    clock.forward(31)
    renewals, _ = await race(services.queue.renew([(task.id, task.lease)]), services.chores.sweep())
    assert [one.id for one in renewals] == [task_id]
    assert await status(services, task_id) is Status.RUNNING
    clock.forward(31)
    _, renewals = await race(services.chores.sweep(), services.queue.renew([(task.id, task.lease)]))
    assert renewals == []
    assert await status(services, task_id) is Status.RETRYING


async def test_two_sweeps_take_a_lease_back_once(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock, race: Any
) -> None:
    task_id = await submit()
    await claim()
    clock.forward(31)
    await race(services.chores.sweep(), services.chores.sweep())
    assert len(await services.tasks.attempts(task_id)) == 1


async def test_a_cancel_request_that_was_first_is_obeyed_by_the_end_that_waited(
    services: Services, submit: Submit, claim: Claim, settle: Settle, race: Any
) -> None:
    task_id = await submit()
    (task,) = await claim()
    await race(services.tasks.cancel(task_id), settle(task, Errored("E", "again")))
    assert await status(services, task_id) is Status.CANCELLED


async def test_a_checkpoint_is_stored_before_the_end_or_not_at_all(
    services: Services, submit: Submit, claim: Claim, settle: Settle, race: Any
) -> None:
    await submit()
    (task,) = await claim()
    add = services.queue.add_checkpoint
    _, stored = await race(settle(task, Cancelled(), checkpointed=True), add(task.id, task.lease, JsonText("1")))
    assert stored is False
    await submit()
    (task,) = await claim()
    stored, _ = await race(add(task.id, task.lease, JsonText("1")), settle(task, Cancelled(), checkpointed=True))
    assert stored is True


async def test_two_checkpoints_of_one_attempt_are_both_kept(
    services: Services, submit: Submit, claim: Claim, settle: Settle, race: Any
) -> None:
    await submit()
    (task,) = await claim()
    add = services.queue.add_checkpoint
    assert await race(add(task.id, task.lease, JsonText("1")), add(task.id, task.lease, JsonText("2"))) == (True, True)
    await settle(task, Errored("E", "again", after_seconds=0), checkpointed=True)
    choose = lambda heads: [Wish(tuple((head.queue, head.task_type) for head in heads), 5)]  # noqa: E731
    assert (await services.queue.exchange("w", [], choose)).checkpoints == {task.id: ["1", "2"]}


# Keys.


def prepared(services: Services, key: str | None = None, **fields: Any) -> Any:
    return services.intake.prepare(Submission.model_validate({"task_type": "echo", **fields}), key)


async def test_the_same_request_sent_twice_at_once_is_one_task(services: Services, race: Any) -> None:
    ask = services.tasks._store  # as two processes would, each with a batcher of its own
    (first,), (second,) = await race(ask([prepared(services, "k")]), ask([prepared(services, "k")]))
    assert (first.replayed, second.replayed) == (False, True)
    assert first.task.id == second.task.id


async def test_a_key_used_twice_at_once_for_different_requests_is_told(services: Services, race: Any) -> None:
    ask = services.tasks._store
    other = prepared(services, "k", payload={"number": 2})
    (first,), (second,) = await race(ask([prepared(services, "k")]), ask([other]))
    assert not first.replayed
    assert isinstance(second, IdempotencyMismatch)


async def test_a_unique_key_wanted_by_two_at_once_goes_to_the_first(services: Services, race: Any) -> None:
    one = lambda: services.tasks._store([prepared(services, unique_key="u")])  # noqa: E731
    (first,), (second,) = await race(one(), one())
    assert isinstance(second, UniqueKeyTaken)
    assert second.holder_id == first.task.id


async def test_two_bulks_with_the_same_keys_the_other_way_round_do_not_wait_in_a_circle(
    services: Services, race: Any
) -> None:
    keys = [f"u{number}" for number in range(20)]
    bulk = lambda keys: services.tasks.submit_all([prepared(services, unique_key=key) for key in keys])  # noqa: E731
    first, second = await race(bulk(keys), bulk(keys[::-1]))
    assert len(first) == 20
    assert isinstance(second, UniqueKeyTaken)


async def test_a_key_whose_holder_ends_while_it_is_looked_for_is_free(
    services: Services, submit: Submit, claim: Claim, settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused by one statement, and the next one finds nobody: then it is tried again."""
    if not on_postgres(services):
        return  # nobody can end it in between
    holder = await submit(unique_key="u")
    (task,) = await claim()
    look_up = task_rows.find_by_keys

    async def slow(*arguments: Any) -> Any:
        monkeypatch.setattr(task_rows, "find_by_keys", look_up)
        await settle(task, DONE)
        return await look_up(*arguments)

    monkeypatch.setattr(task_rows, "find_by_keys", slow)
    assert await submit(unique_key="u") > holder
    (task,) = await claim()
    monkeypatch.setattr(task_rows, "find_by_keys", slow)
    assert len(await services.tasks.submit_all([prepared(services, unique_key="u")])) == 1


async def test_a_retry_and_a_submission_with_its_unique_key_do_not_both_get_it(
    services: Services, submit: Submit, claim: Claim, settle: Settle, race: Any
) -> None:
    failed = await submit(unique_key="u")
    (task,) = await claim()
    await settle(task, Errored("E", "no", retryable=False))
    (stored,), retried_ = await race(
        services.tasks._store([prepared(services, unique_key="u")]), services.tasks.retry(failed)
    )
    assert isinstance(retried_, UniqueKeyTaken)
    assert retried_.holder_id == stored.task.id
    await services.tasks.cancel(stored.task.id)
    _, report = await race(
        services.tasks._store([prepared(services, unique_key="u")]),
        services.dead_letters.requeue(DeadFilter(), dry_run=False),
    )
    assert (report.matched, report.changed) == (1, 0)


# Parents, children, deletion.


async def test_a_child_and_the_deletion_of_its_parent(services: Services, submit: Submit, race: Any) -> None:
    parent = await submit()
    (child,), gone = await race(
        services.tasks._store([prepared(services, parent_id=parent)]), services.tasks.delete(parent)
    )
    assert gone is None
    assert (await services.tasks.get(child.task.id)).parent_id is None
    parent = await submit()
    _, (refused,) = await race(
        services.tasks.delete(parent), services.tasks._store([prepared(services, parent_id=parent)])
    )
    assert isinstance(refused, InvalidRequest)
    parent = await submit()
    _, refused = await race(
        services.tasks.delete(parent), services.tasks.submit_all([prepared(services, parent_id=parent)])
    )
    assert isinstance(refused, InvalidRequest)


async def test_a_child_does_not_wait_for_whoever_works_on_its_parent(
    services: Services, submit: Submit, claim: Claim
) -> None:
    if not on_postgres(services):
        return  # there everyone waits for everyone
    parent = await submit()
    actor = Actor(services.database, claim())  # type: ignore[arg-type]
    await actor.start()
    (child,) = await services.tasks._store([prepared(services, parent_id=parent)])
    assert ids(await actor.commit()) == [parent]
    assert child.task.parent_id == parent


async def test_a_task_is_deleted_or_retried(
    services: Services, submit: Submit, claim: Claim, settle: Settle, race: Any
) -> None:
    task_id = await submit()
    (task,) = await claim()
    await settle(task, Errored("E", "no", retryable=False))
    retried_, deleted = await race(services.tasks.retry(task_id), services.tasks.delete(task_id))
    assert (retried_.status, deleted) == (Status.PENDING, None)
    with pytest.raises(NotFound):
        await services.tasks.get(task_id)


async def test_two_who_prune_delete_each_task_once(
    services: Services, submit: Submit, claim: Claim, settle: Settle, clock: FrozenClock, race: Any
) -> None:
    for _ in range(3):
        await submit()
    for task in await claim():
        await settle(task, DONE)
    clock.forward(8 * 86400)
    assert await race(services.chores.prune(), services.chores.prune()) == (False, False)
    assert (await services.insights.stats()).completed == 0


async def test_a_dry_run_hides_no_dead_letter_from_the_real_one(
    services: Services, submit: Submit, claim: Claim, settle: Settle, race: Any
) -> None:
    """It holds rows for a moment, and whoever acts at that moment has to wait, not to leave them out."""
    for _ in range(3):
        await submit()
    for task in await claim():
        await settle(task, Errored("E", "no", retryable=False))
    letters = services.dead_letters
    tried, done = await race(letters.requeue(DeadFilter(), dry_run=True), letters.requeue(DeadFilter(), dry_run=False))
    assert tried.matched == 3
    assert done.changed == 3


# Files.


async def upload(services: Services) -> StoredFile:
    async with await services.files.receive() as reception:
        await reception.write(b"data")
        return await reception.finish("a.txt", "text/plain")


async def keeping(services: Services, file_id: str) -> int:
    submission = Submission(task_type="copy_file", payload={"file_id": file_id})
    return (await services.tasks.submit(services.intake.prepare(submission))).task.id


async def test_a_file_that_two_let_go_of_at_once_is_kept_by_nobody(services: Services, race: Any) -> None:
    file = await upload(services)
    first, second = await keeping(services, file.id), await keeping(services, file.id)
    await race(services.tasks.delete(first), services.tasks.delete(second))
    with pytest.raises(NotFound):
        await services.files.get(file.id)


async def test_a_file_is_kept_by_a_task_or_deleted(services: Services, race: Any) -> None:
    file = await upload(services)
    task_id, deleted = await race(keeping(services, file.id), services.files.delete(file.id))
    assert isinstance(deleted, Conflict)
    assert [one.id for one, _ in await services.files.of_task(task_id)] == [file.id]
    file = await upload(services)
    deleted, refused = await race(services.files.delete(file.id), keeping(services, file.id))
    assert deleted is None
    assert isinstance(refused, InvalidRequest)


async def test_a_file_that_is_being_collected_is_kept_by_nobody_however_late_his_clock(
    services: Services, stores: Stores, clock: FrozenClock, race: Any
) -> None:
    file = await upload(services)
    clock.forward(services.settings.retention_files_seconds + 1)
    collect = services.files.collect()
    actor = Actor(services.database, collect)
    await actor.start()
    clock.forward(-5)  # whoever submits now has a clock by which the file is still kept
    keep = asyncio.create_task(keeping(services, file.id))
    await _gets_as_far_as_it_can(services.database, stores, keep)
    await actor.commit()
    with pytest.raises(InvalidRequest):
        await keep


# Breakers.


def down() -> Errored:
    return Errored("ConnectionRefusedError", "nobody there", None, dependency="end")


async def test_two_failures_at_once_are_two(services: Services, submit: Submit, claim: Claim, race: Any) -> None:
    for _ in range(2):
        await submit("end")
    first, second = await claim()
    now = services.database.clock()()
    await race(
        services.queue.exchange("a", [Ended(first, down(), now)]),
        services.queue.exchange("b", [Ended(second, down(), now)]),
    )
    (report,) = [one for one in await services.breakers.listed() if one.circuit.name == "end"]
    assert report.state is BreakerState.OPEN, "its limit is two"


async def test_no_more_probes_than_there_may_be(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock, race: Any
) -> None:
    await services.breakers.trip("end", "by hand", 1)
    for _ in range(5):
        await submit("end", max_attempts=9)
    clock.forward(2)
    first, second = await race(claim(room=1, worker="a"), claim(room=5, worker="b"))
    assert (len(first), len(second)) == (1, 1), "two may be tried at once"
    assert await claim() == []


async def test_a_breaker_that_stays_open_holds_up_no_other_work(
    services: Services, submit: Submit, claim: Claim
) -> None:
    if not on_postgres(services):
        return  # there everyone waits for everyone
    await services.breakers.trip("end", "by hand", None)
    await submit("end")
    wanted = [await submit(), await submit()]
    actor = Actor(services.database, claim(room=1, worker="a"))  # type: ignore[arg-type]
    await actor.start()
    assert ids(await claim(worker="b")) == wanted[1:]
    assert ids(await actor.commit()) == wanted[:1]


async def test_a_reset_and_a_failure_at_once(services: Services, submit: Submit, claim: Claim, race: Any) -> None:
    await submit("end")
    (task,) = await claim()
    await services.breakers.trip("end", "by hand", None)
    now = services.database.clock()()
    await race(services.breakers.reset("end"), services.queue.exchange("a", [Ended(task, down(), now)]))
    (report,) = [one for one in await services.breakers.listed() if one.circuit.name == "end"]
    assert (report.state, report.circuit.failures) == (BreakerState.CLOSED, 1)


# What the store breaks up.


async def test_a_deadlock_is_broken_and_nobody_hears_of_it(services: Services, submit: Submit) -> None:
    if not on_postgres(services):
        return  # nobody holds anything while he waits
    first, second = await submit(), await submit()
    met, runs = asyncio.Barrier(2), []

    @retried
    async def touch(*order: int) -> str:
        runs.append(order)
        async with services.database.write() as connection:
            await task_rows.get_for_change(connection, order[0])
            if len(runs) <= 2:
                await met.wait()
            await task_rows.get_for_change(connection, order[1])
        return "done"

    assert await asyncio.gather(touch(first, second), touch(second, first)) == ["done", "done"]
    assert len(runs) == 3


async def test_a_lock_that_is_never_given_back_is_an_error_and_never_a_hang(
    services: Services, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not on_postgres(services):
        return  # tests/models/test_sqlite.py
    task_id = await submit()
    actor = Actor(services.database, services.tasks.edit(task_id, Edit({"priority": 5})))
    await actor.start()
    began = asyncio.get_running_loop().time()
    with pytest.raises(StoreUnavailable, match="lock timeout"):
        await services.tasks.cancel(task_id)
    assert asyncio.get_running_loop().time() - began < 10
    await actor.commit()
