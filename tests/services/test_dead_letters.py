"""Failed tasks that nobody has dealt with: what they are, how they are grouped, what may be done with them."""

from datetime import timedelta
from typing import Any

import pytest

from app.core.lifecycle import Completed, Errored
from app.core.task import FailureReason, JsonText, Status
from app.models.dead_letters import DeadFilter
from app.services.submissions import Submission
from app.services.wiring import Services
from tests.conftest import FrozenClock
from tests.services.conftest import Claim, Settle

ALL = DeadFilter()


async def fail(
    services: Services, claim: Claim, settle: Settle, *messages: str, error: str = "E", **fields: Any
) -> list[int]:
    """Tasks that failed for good, one for each message."""
    ids = []
    for message in messages:
        new = services.intake.prepare(Submission(**{"task_type": "echo"} | fields))
        ids.append((await services.tasks.submit(new)).task.id)
        for task in await claim():
            await settle(task, Errored(error, message, retryable=False))
    return ids


async def dead(services: Services, wanted: DeadFilter = ALL) -> list[int]:
    return sorted(task.id for task in await services.dead_letters.search(wanted, 1000))


async def test_only_failed_tasks_are_dead_letters_and_newest_come_first(
    services: Services, claim: Claim, settle: Settle
) -> None:
    ids = await fail(services, claim, settle, "a", "b", "c")
    await services.tasks.submit(services.intake.prepare(Submission(task_type="echo")))
    for task in await claim():
        await settle(task, Completed(JsonText("1")))
    await services.tasks.submit(services.intake.prepare(Submission(task_type="echo")))
    assert [task.id for task in await services.dead_letters.search(ALL, 10)] == ids[::-1]
    assert [task.id for task in await services.dead_letters.search(ALL, 1, before_id=ids[2])] == [ids[1]]


async def test_filters(services: Services, claim: Claim, settle: Settle) -> None:
    first, second = await fail(services, claim, settle, "no file 1", "no user 2")
    (third,) = await fail(services, claim, settle, "no file 3", queue="other")
    (fourth,) = await fail(services, claim, settle, "no file 4", task_type="raise_error")
    cause = (await services.tasks.get(first)).fingerprint
    assert await dead(services, DeadFilter(fingerprint=cause)) == [first, third]
    assert await dead(services, DeadFilter(queue="other")) == [third]
    assert await dead(services, DeadFilter(task_type="raise_error")) == [fourth]
    assert await dead(services, DeadFilter(failure_reason=FailureReason.ERROR)) == [first, second, third, fourth]
    assert await dead(services, DeadFilter(failure_reason=FailureReason.POISONED)) == []
    assert await dead(services, DeadFilter(ids=(second, 999))) == [second]


async def test_groups_by_cause_largest_first(
    services: Services, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    began = clock()
    many = await fail(services, claim, settle, *(f"order {number} not found" for number in range(12)))
    clock.forward(60)
    await fail(services, claim, settle, "out of paper")
    many += await fail(services, claim, settle, "order 99 not found")
    total, groups = await services.dead_letters.groups(ALL, 10)
    assert total == 14
    assert [(group.count, group.task_type) for group in groups] == [(13, "echo"), (1, "echo")]
    assert groups[0].task_ids == tuple(many[::-1][:10])
    assert groups[0].first_failed_at == began
    assert groups[0].last_failed_at == clock()
    assert "order 99 not found" in str(groups[0].error)
    assert (await services.dead_letters.groups(DeadFilter(queue="none"), 10)) == (0, [])
    assert len((await services.dead_letters.groups(ALL, 1))[1]) == 1
    await services.dead_letters.resolve(DeadFilter(ids=(many[-1],)), "seen", dry_run=False)
    _, groups = await services.dead_letters.groups(ALL, 10)
    assert (groups[0].count, groups[0].task_ids) == (12, tuple(many[-2::-1][:10]))


async def test_requeueing_a_group_runs_it_again_with_a_fresh_budget_and_keeps_its_history(
    services: Services, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    first, second, other = await fail(services, claim, settle, "order 1", "order 2", "no luck")
    clock.forward(5)
    cause = (await services.tasks.get(first)).fingerprint
    report = await services.dead_letters.requeue(DeadFilter(fingerprint=cause), dry_run=False)
    assert (report.matched, report.changed, report.task_ids, report.skipped) == (2, 2, [first, second], [])
    assert await dead(services) == [other]
    task = await services.tasks.get(first)
    assert (task.status, task.attempts, task.deaths, task.failure_reason) == (Status.PENDING, 0, 0, None)
    by_hand = await services.tasks.retry(other)
    assert task.rank == by_hand.rank
    claimed = {one.id: one for one in await claim()}
    assert claimed[first].lease == 2
    assert [one.outcome for one in await services.tasks.attempts(first)] == ["error", None]


@pytest.mark.parametrize("priority", [-7, 0, 33])
async def test_a_requeued_task_has_the_rank_of_its_priority(
    services: Services, claim: Claim, settle: Settle, priority: int
) -> None:
    one, other = await fail(services, claim, settle, "a", "b", priority=priority)
    await services.dead_letters.requeue(DeadFilter(ids=(one,)), dry_run=False)
    assert (await services.tasks.get(one)).rank == (await services.tasks.retry(other)).rank


async def test_a_dry_run_says_what_would_happen_and_changes_nothing(
    services: Services, claim: Claim, settle: Settle
) -> None:
    ids = await fail(services, claim, settle, "a", "b")
    for act in (services.dead_letters.requeue, services.dead_letters.purge):
        report = await act(ALL, dry_run=True)
        assert (report.dry_run, report.matched, report.changed, report.task_ids) == (True, 2, 2, ids)
    await services.dead_letters.resolve(ALL, "x", dry_run=True)
    assert await dead(services) == ids
    assert [(await services.tasks.get(id_)).status for id_ in ids] == [Status.FAILED, Status.FAILED]


@pytest.mark.parametrize("dry_run", [True, False])
async def test_dead_letters_are_requeued_as_far_as_their_queue_has_room(
    services: Services, claim: Claim, settle: Settle, dry_run: bool
) -> None:
    ids = await fail(services, claim, settle, "a", "b", "c", queue="q")
    (other,) = await fail(services, claim, settle, "d", queue="other")
    await services.tasks.submit(services.intake.prepare(Submission(task_type="echo", queue="q")))
    await services.limits.change("q", {"max_depth": 2})
    report = await services.dead_letters.requeue(ALL, dry_run=dry_run)
    assert (report.matched, report.changed, report.task_ids) == (4, 2, [ids[0], other])
    assert [one["id"] for one in report.skipped] == ids[1:]
    assert {str(one["reason"]) for one in report.skipped} == {"1 tasks wait in queue q, and at most 2 may wait in it."}
    assert await dead(services) == ([*ids, other] if dry_run else ids[1:])


async def test_a_tenant_without_room_takes_none_of_its_queue(
    services: Services, claim: Claim, settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tenant in ("north", "south"):
        for _ in range(2):
            new = services.intake.prepare(Submission(task_type="echo", queue="q"), tenant=tenant)
            await services.tasks.submit(new)
    for task in await claim():
        await settle(task, Errored("E", "no", retryable=False))
    await services.tasks.submit(services.intake.prepare(Submission(task_type="echo"), tenant="north"))
    monkeypatch.setattr(services.dead_letters._quota, "_most", 1)
    await services.limits.change("q", {"max_depth": 1})
    report = await services.dead_letters.requeue(ALL, dry_run=False)
    assert [(await services.tasks.get(id_)).tenant for id_ in report.task_ids] == ["south"]


async def test_a_task_whose_unique_key_is_taken_is_left_alone(services: Services, claim: Claim, settle: Settle) -> None:
    first, second = await fail(services, claim, settle, "a", "b", unique_key="k")
    (third,) = await fail(services, claim, settle, "c", unique_key="other")
    holder = await services.tasks.submit(services.intake.prepare(Submission(task_type="echo", unique_key="other")))
    report = await services.dead_letters.requeue(ALL, dry_run=False)
    assert (report.matched, report.changed, report.task_ids) == (3, 1, [first])
    assert report.skipped == [
        {"id": second, "reason": f"task {first} holds its unique key"},
        {"id": third, "reason": f"task {holder.task.id} holds its unique key"},
    ]
    assert await dead(services) == [second, third]


async def test_a_resolved_task_stays_failed_with_its_note_until_it_is_retried(
    services: Services, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    (task_id,) = await fail(services, claim, settle, "a")
    await services.dead_letters.resolve(ALL, "the file was broken", dry_run=False)
    task = await services.tasks.get(task_id)
    assert (task.status, task.resolution) == (Status.FAILED, "the file was broken")
    assert task.resolved_at == clock()
    assert await dead(services) == []
    assert (await services.dead_letters.requeue(ALL, dry_run=False)).matched == 0
    again = await services.tasks.retry(task_id)
    assert (again.status, again.resolved_at, again.resolution) == (Status.PENDING, None, None)


async def test_purging_deletes_dead_letters_alone(services: Services, claim: Claim, settle: Settle) -> None:
    ids = await fail(services, claim, settle, "a", "b")
    await services.dead_letters.resolve(DeadFilter(ids=(ids[0],)), None, dry_run=False)
    report = await services.dead_letters.purge(DeadFilter(ids=tuple(ids)), dry_run=False)
    assert (report.matched, report.changed) == (1, 1)
    assert (await services.tasks.get(ids[0])).resolved_at is not None
    assert await dead(services) == []


async def test_more_than_one_batch(services: Services, claim: Claim, settle: Settle) -> None:
    new = [services.intake.prepare(Submission(task_type="echo")) for _ in range(1203)]
    await services.tasks.submit_all(new)
    for task in await claim(room=2000):
        await settle(task, Errored("E", f"number {task.id}", retryable=False))
    report = await services.dead_letters.requeue(ALL, dry_run=False)
    assert (report.matched, report.changed, len(report.task_ids)) == (1203, 1203, 10)
    assert await dead(services) == []


async def test_what_expired_has_a_cause_too(services: Services, clock: FrozenClock) -> None:
    for task_type in ("echo", "echo", "raise_error"):
        new = services.intake.prepare(Submission(task_type=task_type, expires_at=clock() + timedelta(seconds=5)))
        await services.tasks.submit(new)
    clock.forward(6)
    await services.chores.expire()
    total, groups = await services.dead_letters.groups(ALL, 10)
    assert total == 3
    assert [(group.task_type, group.count) for group in groups] == [("echo", 2), ("raise_error", 1)]


# Retry policies of a task's own.


async def test_a_submission_may_bring_its_own_retry_policy(
    services: Services, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    options = {"policy": "fixed", "base_seconds": 40.0, "jitter": False}
    submission = Submission.model_validate({"task_type": "echo", "retry": options, "max_attempts": 3})
    task_id = (await services.tasks.submit(services.intake.prepare(submission))).task.id
    for _ in range(2):
        (task,) = await claim()
        await settle(task, Errored("E", "again"))
        assert (await services.tasks.get(task_id)).scheduled_at == clock() + timedelta(seconds=40)
        clock.forward(41)
        await services.chores.promote()


async def test_no_attempt_starts_after_the_time_that_all_of_them_have(
    services: Services, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    options = {"policy": "fixed", "base_seconds": 40.0, "jitter": False}
    asked = {"task_type": "echo", "retry": options, "max_attempts": 100, "retry_for_seconds": 100.0}
    task_id = (await services.tasks.submit(services.intake.prepare(Submission.model_validate(asked)))).task.id
    attempts = 0
    while not (await services.tasks.get(task_id)).finished:
        (task,) = await claim()
        await settle(task, Errored("E", "again"))
        attempts += 1
        clock.forward(40)
        await services.chores.promote()
    task = await services.tasks.get(task_id)
    assert (attempts, task.failure_reason) == (3, FailureReason.EXHAUSTED)
    await services.tasks.retry(task_id)
    assert (await services.tasks.get(task_id)).retry_until == clock() + timedelta(seconds=100)
