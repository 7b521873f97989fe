"""Lines of attempts in both stores."""

from datetime import timedelta

import pytest

from app.core.attempt_log import KEPT_ATTEMPTS, AttemptLog, Chunk, LogLimits, Source
from app.core.errors import NotFound
from app.core.lifecycle import Completed, Snoozed
from app.core.task import ClaimedTask, JsonText
from app.models import task_logs as rows
from app.services.wiring import Services
from tests.conftest import FrozenClock
from tests.services.conftest import Claim, Settle, Submit


def log_of(task: ClaimedTask, lines: int = 100) -> AttemptLog:
    return AttemptLog(task.id, task.lease, task.attempt, LogLimits(lines, 2**20))


def said(log: AttemptLog, services: Services, *texts: str) -> list[Chunk]:
    for text in texts:
        log.add(services.database.clock()(), Source.STDOUT, text, None)
    return log.take()


async def spans(services: Services, task_id: int) -> list[tuple[int, int, int]]:
    """Lease, first and last number of each chunk."""
    return [(one.lease, one.number - one.count + 1, one.number) for one in await services.tasks.lines(task_id)]


async def test_lines_are_stored_with_progress_and_read_in_their_order(
    services: Services, submit: Submit, claim: Claim
) -> None:
    task_id = await submit()
    (task,) = await claim()
    log = log_of(task)
    chunks = said(log, services, "ä \x00 \U0001f680", "two")
    await services.queue.save_progress([(task.id, task.lease, JsonText('{"percent":1}'))], chunks)
    await services.queue.save_progress([], said(log, services, "three"))
    assert await spans(services, task_id) == [(1, 1, 2), (1, 3, 3)]
    assert (await services.tasks.lines(task_id))[0].lines == chunks[0].lines
    assert await services.tasks.lines(task_id, (1, 2)) == (await services.tasks.lines(task_id))[1:]
    async with services.database.read() as connection:
        assert await rows.positions(connection, [task_id, 99]) == {task_id: (1, 3), 99: (0, 0)}


async def test_what_is_stored_twice_is_there_once(services: Services, submit: Submit, claim: Claim) -> None:
    """The answer to the first time may have been lost."""
    task_id = await submit()
    (task,) = await claim()
    chunks = said(log_of(task), services, "one")
    for _ in range(2):
        await services.queue.save_progress([], chunks)
    assert await spans(services, task_id) == [(1, 1, 1)]


async def test_the_oldest_lines_of_an_attempt_go(services: Services, submit: Submit, claim: Claim) -> None:
    task_id = await submit()
    (task,) = await claim()
    log = log_of(task, lines=10)
    for number in range(8):
        await services.queue.save_progress([], said(log, services, f"{number} a", f"{number} b"))
    assert await spans(services, task_id) == [(1, first, first + 1) for first in range(7, 16, 2)]


async def test_the_oldest_attempts_go(
    services: Services, submit: Submit, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    task_id = await submit()
    for _ in range(KEPT_ATTEMPTS + 2):
        (task,) = await claim()
        await services.queue.save_progress([], said(log_of(task), services, "one"))
        await settle(task, Snoozed(1))
        clock.forward(2)
    assert [lease for lease, _, _ in await spans(services, task_id)] == list(range(3, KEPT_ATTEMPTS + 3))


async def test_lines_that_come_after_the_end_are_kept_and_of_a_deleted_task_nothing_is(
    services: Services, submit: Submit, claim: Claim, settle: Settle
) -> None:
    ended, deleted = await submit(), await submit()
    first, second = await claim()
    for task in (first, second):
        await settle(task, Completed(JsonText("1")))
    await services.tasks.delete(deleted)
    await services.queue.save_progress(
        [], [*said(log_of(first), services, "late"), *said(log_of(second), services, "too late")]
    )
    assert await spans(services, ended) == [(1, 1, 1)]
    with pytest.raises(NotFound):
        await services.tasks.lines(deleted)
    await services.tasks.delete(ended)
    async with services.database.read() as connection:
        assert await rows.after(connection, ended) == []


async def test_who_reads_lines_is_woken_by_new_ones_and_nobody_else_is(
    services: Services, submit: Submit, claim: Claim
) -> None:
    task_id = await submit()
    (claimed,) = await claim()
    task = await services.tasks.get(task_id)
    await services.queue.save_progress([], said(log_of(claimed), services, "one"))
    assert await services.watcher.changed(task, 5, (0, 0))
    assert not await services.watcher.changed(task, 0.1, (1, 1))
    assert not await services.watcher.changed(task, 0.1)


async def test_lines_go_with_their_task_when_it_is_pruned(
    services: Services, submit: Submit, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    task_id = await submit()
    (task,) = await claim()
    await services.queue.save_progress([], said(log_of(task), services, "one"))
    await settle(task, Completed(JsonText("1")))
    clock.forward(timedelta(days=8).total_seconds())
    await services.chores.prune()
    async with services.database.read() as connection:
        assert await rows.after(connection, task_id) == []
