"""What a worker does with every way an executor can end, seen on the rows. Real runners, real database."""

import asyncio
import contextlib
import json
import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
import structlog

from app.core.errors import Conflict, PluginError, StoreUnavailable
from app.core.explain import Why
from app.core.retry import RetryPolicy
from app.core.slots import Room
from app.core.task import FailureReason, Status
from app.services.queue import TaskQueue, Wish
from app.workers.worker import PATIENCE
from tests.conftest import until
from tests.workers.conftest import Running, Start


def processes_named(text: str) -> list[int]:
    """Pids of live processes whose command line has `text`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if text in command:
                found.append(int(entry.name))
    return found


async def test_a_task_is_run_and_its_result_stored(start: Start) -> None:
    running = await start()
    task = await running.run("echo", payload={"number": 7})
    assert (task.status, task.result, task.attempts, task.failure_reason) == (Status.COMPLETED, '{"number":7}', 1, None)
    assert task.worker_id is not None
    assert task.started_at is not None
    assert task.finished_at is not None
    assert task.created_at - timedelta(milliseconds=1) <= task.started_at <= task.finished_at
    assert await running.outcomes(task.id) == ["completed"]


async def test_async_executors_share_a_runner_and_really_run_side_by_side(start: Start, tmp_path: Path) -> None:
    running = await start(processes=1, concurrency=8)
    payload = {"folder": str(tmp_path), "seconds": 20}
    ids = [await running.submit("wait_shared", payload=payload) for _ in range(8)]
    await until(lambda: len(list(tmp_path.glob("began-*"))) == 8)
    assert {(await running.get(id_)).status for id_ in ids} == {Status.RUNNING}
    for id_ in ids:
        await running.services.tasks.cancel(id_)
    for id_ in ids:
        assert (await running.ended(id_)).status is Status.CANCELLED


async def test_a_plain_executor_has_a_runner_to_itself(start: Start, tmp_path: Path) -> None:
    running = await start(processes=2)
    payload = {"folder": str(tmp_path), "seconds": 20}
    ids = [await running.submit("wait_plain", payload=payload) for _ in range(3)]
    await until(lambda: len(list(tmp_path.glob("began-*"))) == 2)
    assert (await running.get(ids[2])).status is Status.PENDING
    (tmp_path / "go").touch()
    assert [(await running.ended(id_)).result for id_ in ids] == ['"waited"'] * 3


async def test_many_short_tasks_of_both_kinds_all_complete(start: Start) -> None:
    running = await start(processes=2)
    echo = [await running.submit("echo", payload={"number": number}) for number in range(60)]
    shared = [await running.submit("echo_shared", payload={"number": number}) for number in range(60)]
    for number, id_ in enumerate(echo):
        assert (await running.ended(id_)).result == f'{{"number":{number}}}'
    for number, id_ in enumerate(shared):
        assert (await running.ended(id_)).result == f'{{"number":{number}}}'


async def test_an_error_is_retried_and_then_given_up_with_its_reason(start: Start) -> None:
    running = await start()
    task = await running.run("raise_error", payload={"number": 3})
    assert (task.status, task.failure_reason, task.attempts) == (Status.FAILED, FailureReason.EXHAUSTED, 2)
    assert task.error is not None
    assert '"type":"ValueError"' in task.error
    assert "number 3 is no good" in task.error
    assert "sample_executors.py" in task.error
    assert await running.outcomes(task.id) == ["error", "error"]


async def test_a_later_attempt_may_succeed(start: Start, tmp_path: Path) -> None:
    running = await start()
    task = await running.run("second_time", payload={"folder": str(tmp_path)})
    assert (task.status, task.result, task.error) == (Status.COMPLETED, '{"attempt":2}', None)
    assert await running.outcomes(task.id) == ["error", "completed"]


@pytest.mark.parametrize(
    ("what", "status", "reason", "says"),
    [
        ("retry", Status.COMPLETED, None, None),
        ("retry_nonsense", Status.FAILED, "exhausted", "after must be seconds or a timedelta"),
        ("validation_error", Status.FAILED, "exhausted", "validation error"),
        ("fail", Status.FAILED, "error", "no use"),
        ("cancel", Status.CANCELLED, None, "not wanted"),
        ("exit", Status.FAILED, "exhausted", "SystemExit"),
        ("nan", Status.FAILED, "error", "cannot be stored as JSON"),
        ("set", Status.FAILED, "error", "set is not JSON serializable"),
        ("bytes", Status.FAILED, "error", "bytes is not JSON serializable"),
        ("nul", Status.FAILED, "error", "NUL character"),
        ("surrogate", Status.FAILED, "error", "surrogates not allowed"),
        ("cycle", Status.FAILED, "error", "Circular reference"),
        ("huge", Status.FAILED, "error", "the limit is 1048576"),
        ("unprintable", Status.FAILED, "exhausted", "its message cannot be shown"),
    ],
)
async def test_what_an_executor_raises_or_returns_decides(
    start: Start, what: str, status: Status, reason: str | None, says: str | None
) -> None:
    running = await start()
    task = await running.run("signal_raised", payload={"what": what})
    assert (task.status, task.failure_reason) == (status, reason)
    assert says is None or says in str(task.error)


async def test_a_snooze_costs_no_attempt(start: Start) -> None:
    running = await start()
    task_id = await running.submit("signal_raised", payload={"what": "snooze"})
    task = await running.in_status(task_id, Status.SCHEDULED)
    assert task.attempts == 0
    assert task.scheduled_at is not None
    assert task.scheduled_at - task.created_at > timedelta(seconds=3500)
    assert await running.outcomes(task_id) == ["snoozed"]


async def test_a_runner_that_dies_costs_that_attempt_and_nothing_else(start: Start) -> None:
    running = await start(processes=2)
    good = [await running.submit("echo", payload={"number": number}) for number in range(10)]
    task = await running.run("die")
    assert (task.status, task.failure_reason, task.attempts, task.deaths) == (Status.FAILED, "poisoned", 3, 3)
    assert "SIGSEGV" in str(task.error)
    good += [await running.submit("echo", payload={"number": number}) for number in range(10)]
    for id_ in good:
        assert (await running.ended(id_)).status is Status.COMPLETED
    assert [outcome for outcome in await running.outcomes(task.id) if outcome != "released"] == ["lost"] * 3


async def test_bystanders_of_a_death_are_not_charged(start: Start, tmp_path: Path) -> None:
    """With several attempts inside, nobody knows which one did it: all go back uncharged and run alone once."""
    running = await start(processes=1, concurrency=8)
    payload = {"folder": str(tmp_path), "seconds": 0.4}
    innocent = [await running.submit("wait_shared", payload=payload) for _ in range(3)]
    await until(lambda: len(list(tmp_path.glob("began-*"))) == 3)
    guilty = await running.submit("die_shared")
    for id_ in innocent:
        task = await running.ended(id_)
        assert (task.status, task.attempts, task.deaths) == (Status.COMPLETED, 1, 0)
    assert (await running.ended(guilty)).failure_reason == "poisoned"
    outcomes = await running.outcomes(guilty)
    assert outcomes.count("lost") == 3
    assert outcomes[0] == "released"


async def test_a_time_limit_stops_code_that_never_listens(start: Start) -> None:
    running = await start(processes=1)
    task = await running.run("spin")
    assert (task.status, task.failure_reason) == (Status.FAILED, "timeout")
    assert task.started_at is not None
    assert task.finished_at is not None
    assert task.finished_at - task.started_at < timedelta(seconds=5)
    assert (await running.run("echo", payload={"number": 1})).status is Status.COMPLETED


async def test_a_time_limit_given_at_submission_counts(start: Start, tmp_path: Path) -> None:
    running = await start()
    task = await running.run(
        "wait_shared", payload={"folder": str(tmp_path), "seconds": 60}, timeout_seconds=0.2, max_attempts=1
    )
    assert task.failure_reason == "timeout"
    assert "0.2 s" in str(task.error)


async def test_the_others_in_a_runner_killed_for_one_are_released_uncharged(start: Start, tmp_path: Path) -> None:
    running = await start(processes=1, concurrency=4)
    bystander = await running.submit("wait_shared", payload={"folder": str(tmp_path), "seconds": 0.5})
    await until(lambda: list(tmp_path.glob("began-*")))
    (given,) = running.pool.running()
    given.stop_reason, given.kill_at = None, None
    stuck = await running.submit("wait_shared", payload={"folder": str(tmp_path), "seconds": 60}, max_attempts=1)
    await until(lambda: len(running.pool.running()) == 2)
    (other,) = [one for one in running.pool.running() if one.task.id == stuck]
    other.stop_reason, other.kill_at = "the time limit is up", time.monotonic()
    assert (await running.ended(stuck)).failure_reason == "timeout"
    task = await running.ended(bystander)
    assert (task.status, task.attempts) == (Status.COMPLETED, 1)
    assert await running.outcomes(bystander) == ["released", "completed"]


async def test_a_running_task_is_cancelled_within_moments(start: Start, tmp_path: Path) -> None:
    running = await start()
    for task_type in ("listen_to_context", "wait_shared", "wait_plain"):
        task_id = await running.submit(task_type, payload={"folder": str(tmp_path), "seconds": 30})
        began_file = tmp_path / f"began-{task_id}-1"
        await until(began_file.exists)
        await running.services.tasks.cancel(task_id)
        began = time.monotonic()
        task = await running.ended(task_id)
        assert task.status is Status.CANCELLED
        assert time.monotonic() - began < 10
        assert await running.outcomes(task_id) == ["cancelled"]
    assert (await running.run("echo")).status is Status.COMPLETED


async def test_checkpoints_survive_the_death_of_the_runner(start: Start, tmp_path: Path) -> None:
    running = await start()
    task = await running.run("checkpointed", payload={"folder": str(tmp_path)})
    assert task.result == '{"found":[{"step":1},{"step":2}],"attempt":2}'
    shared = await running.run("checkpointed_shared")
    assert shared.result == '{"found":[[1]]}'


async def test_what_user_code_says_is_shown_and_logged(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # where it is set, what is printed never waits in a pipe
    with structlog.testing.capture_logs() as lines:
        running = await start()
        task = await running.run("chatter", payload={"number": 5})
        await until(lambda: any(line["event"] == "printed" for line in lines))
    assert task.result == '"said"'
    assert '"percent":42' in str(task.progress)
    assert '"data":{"number":5}' in str(task.progress)
    logged = next(line for line in lines if line["event"] == "logged by user code")
    assert (logged["task"], logged["number"]) == (task.id, 5)
    printed = next(line for line in lines if line["event"] == "printed")
    assert (printed["line"], printed["tasks"]) == ("printed by user code", [task.id])


async def kept(running: Running, task_id: int) -> list[tuple[str, str]]:
    """Source and text of every line that is stored of a task."""
    chunks = await running.services.tasks.lines(task_id)
    return [(line["source"], line["text"]) for chunk in chunks for line in json.loads(chunk.lines)]


@pytest.mark.parametrize("task_type", ["say_all", "say_all_shared"])
async def test_what_user_code_says_is_kept_with_its_attempt(
    start: Start, monkeypatch: pytest.MonkeyPatch, task_type: str
) -> None:
    """Without what this process knows as a secret; also what comes after the end, by another way."""
    monkeypatch.setenv("SECRET_CRM", "extremely-secret-1")
    running = await start()
    task = await running.run(task_type, payload={"number": 300})
    expected = {
        ("stdout", "printed [redacted]"),
        ("stderr", "warned [redacted]"),
        ("log", "logged [redacted]"),
        ("stdout", "no end of line"),
    }

    async def all_there() -> bool:
        return expected <= set(await kept(running, task.id))

    await until(all_there)
    (last,) = (await running.services.tasks.lines(task.id))[-1:]
    assert last.number == 304
    assert "extremely" not in str(await running.services.tasks.lines(task.id))


async def test_nothing_is_kept_where_nothing_is_to_be(start: Start) -> None:
    running = await start(attempt_log_lines=0)
    task = await running.run("chatter", payload={"number": 5})
    assert task.status is Status.COMPLETED
    await running.stop()
    assert await kept(running, task.id) == []


async def test_the_last_words_of_a_runner_are_kept(start: Start) -> None:
    running = await start()
    task = await running.run("say_and_die", max_attempts=1)
    await running.stop()
    assert ("stdout", "these are my last words") in await kept(running, task.id)


async def test_lines_that_could_not_be_stored_are_stored_later(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await start()
    save = running.services.queue.save_progress
    failures = iter([StoreUnavailable("away"), StoreUnavailable("away")])

    async def sometimes(*arguments: Any) -> None:
        for failure in failures:
            raise failure
        await save(*arguments)

    monkeypatch.setattr(running.services.queue, "save_progress", sometimes)
    task = await running.run("chatter", payload={"number": 5})

    async def both() -> bool:
        return [text for _, text in sorted(await kept(running, task.id))] == [
            "logged by user code",
            "printed by user code",
        ]

    await until(both)
    assert next(failures, None) is None


async def test_progress_is_seen_while_the_task_runs(start: Start, tmp_path: Path) -> None:
    running = await start()
    task_id = await running.submit("listen_to_context", payload={"folder": str(tmp_path)})

    async def shown() -> bool:
        task = await running.get(task_id)
        return task.status is Status.RUNNING and "still here" in str(task.progress)

    await until(shown)
    await running.services.tasks.cancel(task_id)
    await running.ended(task_id)


async def test_a_worker_serves_only_its_queues(start: Start) -> None:
    running = await start(queues=("fast", "slow"))
    elsewhere = await running.submit("echo", queue="other")
    for queue in ("fast", "slow"):
        assert (await running.run("echo", queue=queue)).status is Status.COMPLETED
    assert (await running.get(elsewhere)).status is Status.PENDING


async def test_a_delayed_task_starts_when_it_is_due(start: Start) -> None:
    running = await start(poll_seconds=0.1)
    task = await running.run("echo", delay_seconds=0.5)
    assert task.started_at is not None
    assert task.scheduled_at is not None
    assert timedelta(milliseconds=-1) <= task.started_at - task.scheduled_at


async def test_a_waiting_worker_wakes_at_the_next_due_time(start: Start) -> None:
    """Nothing else wakes it here: it polls every hour."""
    running = await start(poll_seconds=3600)
    await running.run("echo")
    task = await running.run("echo", delay_seconds=0.4)
    assert task.status is Status.COMPLETED


async def test_a_worker_is_listed_while_it_lives(start: Start, tmp_path: Path) -> None:
    running = await start(processes=1, concurrency=4)
    (worker,) = await until(running.services.insights.workers)
    assert (worker.row.name, worker.row.pid, worker.row.slots) == ("test", os.getpid(), 4)
    assert (worker.state, worker.silent_seconds) == ("running", None)
    task_id = await running.submit("wait_plain", payload={"folder": str(tmp_path), "seconds": 20})

    async def shown() -> bool:
        (worker,) = await running.services.insights.workers()
        return "wait_plain" in worker.row.running

    await until(shown)
    (worker,) = await running.services.insights.workers_with_room()
    assert worker.room == Room(0, 0)  # it has its only runner to itself
    waiting = await running.submit("echo")
    reason, _ = (await running.services.explainer.explain(waiting)).reasons
    assert (reason.reason, reason.held_by) == (Why.WORKERS_BUSY, (task_id,))
    row = worker.row
    assert row.memory_bytes is not None
    (runner,) = json.loads(row.runners)
    assert runner["task_ids"] == [task_id]
    assert Path(f"/proc/{runner['pid']}/cmdline").read_bytes().split(b"\0")[2] == b"app.workers.guard"  # forked by it
    assert 10 * 2**20 < runner["memory_bytes"] < 2**30
    own = row.memory_bytes - runner["memory_bytes"]
    assert own == pytest.approx(_in_use(), rel=0.1)
    (tmp_path / "go").touch()

    async def idle() -> bool:
        (worker,) = await running.services.insights.workers()
        return worker.row.running == "[]"

    await until(idle)
    await running.stop()
    assert await running.services.insights.workers() == []


def _in_use() -> int:
    """Bytes that this process has in memory, from another of the kernel's files than the worker reads."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


# Stopping.


async def test_stopping_lets_tasks_finish_within_the_grace(start: Start, tmp_path: Path) -> None:
    running = await start(processes=1)
    task_id = await running.submit("wait_plain", payload={"folder": str(tmp_path), "seconds": 20})
    await until(lambda: list(tmp_path.glob("began-*")))
    behind = await running.submit("echo")
    running.worker.stop()
    await asyncio.sleep(0)
    (tmp_path / "go").touch()
    await running.work
    assert (await running.get(task_id)).status is Status.COMPLETED
    assert (await running.get(behind)).attempts in (0, 1)
    assert (await running.get(behind)).status in (Status.PENDING, Status.COMPLETED)


async def test_what_does_not_fit_the_grace_is_handed_back_uncharged(start: Start, tmp_path: Path) -> None:
    running = await start(processes=1, shutdown_grace_seconds=0.2)
    task_id = await running.submit("wait_plain", payload={"folder": str(tmp_path), "seconds": 60})
    await until(lambda: list(tmp_path.glob("began-*")))
    before = await running.get(task_id)
    await running.stop()
    after = await running.get(task_id)
    assert (after.status, after.attempts, after.rank) == (Status.PENDING, 0, before.rank)
    assert await running.outcomes(task_id) == ["released"]


async def test_a_second_signal_stops_at_once(start: Start, tmp_path: Path) -> None:
    running = await start(processes=1, shutdown_grace_seconds=60)
    task_id = await running.submit("wait_plain", payload={"folder": str(tmp_path), "seconds": 60})
    await until(lambda: list(tmp_path.glob("began-*")))
    running.worker.stop()
    began = time.monotonic()
    running.worker.stop()
    await running.work
    assert time.monotonic() - began < 15
    assert (await running.get(task_id)).status is Status.PENDING


async def test_no_runner_outlives_its_worker(start: Start, tmp_path: Path) -> None:
    running = await start(processes=2)
    await running.run("echo")
    pids = [runner.pid for runner in running.pool.roster.runners]
    assert set(pids) <= set(processes_named("app.workers.runner"))
    await running.stop()
    assert set(pids).isdisjoint(processes_named("app.workers.runner"))


async def test_runners_ignore_the_signals_of_a_terminal(start: Start) -> None:
    running = await start(processes=1)
    await running.run("echo")
    (runner,) = running.pool.roster.runners
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(runner.pid, number)
    task = await running.run("echo")
    assert task.status is Status.COMPLETED
    assert running.pool.roster.runners == [runner]


# Trouble.


async def test_executors_that_cannot_be_loaded_stop_the_worker_with_their_name(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent could load the module, its runners cannot: that is said, and nothing is claimed in vain."""
    (tmp_path / "only_once.py").write_text(
        "from pathlib import Path\n"
        "from pydantic import BaseModel\n"
        "from app.services.executors import executor\n"
        f"loaded = Path({str(tmp_path / 'loaded')!r})\n"
        "if loaded.exists():\n    raise RuntimeError('second time')\n"
        "loaded.touch()\n"
        "class P(BaseModel): pass\n"
        "@executor('once', payload=P)\ndef once(payload, context): return 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    running = await start(executor_modules=("only_once",))
    with pytest.raises(PluginError, match=r"only_once.*second time"):
        await running.work


async def test_a_store_that_is_away_for_a_while_only_delays(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = TaskQueue.exchange
    failures = iter(range(3))

    async def flaky(self: TaskQueue, worker_id: str, ended: Any, *rest: Any) -> Any:
        if ended and next(failures, None) is not None:
            raise StoreUnavailable("away for a moment")
        return await exchange(self, worker_id, ended, *rest)

    monkeypatch.setattr(TaskQueue, "exchange", flaky)
    running = await start()
    task = await running.run("echo", payload={"number": 1})
    assert (task.status, task.attempts) == (Status.COMPLETED, 1)


async def test_the_waits_grow_while_the_store_is_away_and_begin_anew_afterwards(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = TaskQueue.exchange
    failures = iter([True] * 12 + [False] * 3 + [True])
    asked: list[int] = []

    async def flaky(self: TaskQueue, worker_id: str, ended: Any, *rest: Any) -> Any:
        if ended and next(failures, False):
            raise StoreUnavailable("away for a moment")
        return await exchange(self, worker_id, ended, *rest)

    def at_once(self: RetryPolicy, attempt: int, random: Any) -> float:
        asked.append(attempt)
        return 0.0

    monkeypatch.setattr(TaskQueue, "exchange", flaky)
    monkeypatch.setattr(RetryPolicy, "delay_seconds", at_once)
    running = await start()
    for _ in range(4):
        assert (await running.run("echo")).status is Status.COMPLETED
    assert asked == [*range(1, 13), 1]


def test_a_wait_for_the_store_is_bounded_and_no_two_are_the_same() -> None:
    random = Random(1)
    waits = [[PATIENCE.delay_seconds(number, random) for _ in range(200)] for number in (1, 3, 5, 1000)]
    assert [max(wait) for wait in waits] == sorted(max(wait) for wait in waits)
    assert max(map(max, waits)) <= 4.0
    assert all(len(set(wait)) == len(wait) for wait in waits)


async def test_a_worker_that_waits_for_the_store_stops_when_it_is_told_to(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(self: TaskQueue, *rest: Any) -> Any:
        tried.set()
        raise StoreUnavailable("away")

    tried = asyncio.Event()
    monkeypatch.setattr(TaskQueue, "exchange", away)
    monkeypatch.setattr(RetryPolicy, "delay_seconds", lambda *_: 1000.0)
    running = await start()
    await asyncio.wait_for(tried.wait(), 20)
    async with asyncio.timeout(20):
        await running.stop()


async def test_a_worker_stops_although_what_an_attempt_waits_for_cannot_be_stored(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(self: TaskQueue, *rest: Any) -> bool:
        tried.set()
        raise StoreUnavailable("away")

    tried = asyncio.Event()
    monkeypatch.setattr(TaskQueue, "add_checkpoint", away)
    running = await start(shutdown_grace_seconds=0.1)
    task_id = await running.submit("checkpointed", payload={"folder": ""})
    await asyncio.wait_for(tried.wait(), 20)
    async with asyncio.timeout(20):
        await running.stop()
    assert await running.outcomes(task_id) == ["released"]


async def test_progress_that_could_not_be_stored_is_stored_later(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, failures = TaskQueue.save_progress, iter(range(3))

    async def flaky(self: TaskQueue, *given: Any) -> None:
        if next(failures, None) is not None:
            raise StoreUnavailable("away")
        await save(self, *given)

    monkeypatch.setattr(TaskQueue, "save_progress", flaky)
    running = await start()
    task_id = await running.submit("report_once", payload={"folder": str(tmp_path)})

    async def shown() -> bool:
        return "half" in str((await running.get(task_id)).progress)

    await until(shown)
    (tmp_path / "go").touch()
    assert (await running.ended(task_id)).status is Status.COMPLETED


async def test_an_outcome_that_no_store_takes_fails_its_task_and_no_other(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = TaskQueue.exchange

    async def refuse(self: TaskQueue, worker_id: str, ended: Any, *rest: Any) -> Any:
        if any(getattr(one.outcome, "result", "") == '{"number":13}' for one in ended):
            raise ValueError("this cannot be written")
        return await exchange(self, worker_id, ended, *rest)

    monkeypatch.setattr(TaskQueue, "exchange", refuse)
    running = await start()
    ids = [await running.submit("echo", payload={"number": number}) for number in (12, 13, 14)]
    ended = [await running.ended(id_) for id_ in ids]
    assert [task.status for task in ended] == [Status.COMPLETED, Status.FAILED, Status.COMPLETED]
    assert "could not be stored" in str(ended[1].error)


async def test_a_worker_that_cannot_renew_stops_its_runs_before_the_lease_is_over(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(self: TaskQueue, leases: Any) -> Any:
        raise StoreUnavailable("away")

    monkeypatch.setattr(TaskQueue, "renew", away)
    running = await start(lease_seconds=2, sweep_seconds=3600)
    task_id = await running.submit("wait_plain", payload={"folder": str(tmp_path), "seconds": 60})
    await until(lambda: list(tmp_path.glob("began-*")))
    claimed_at = (await running.get(task_id)).started_at
    assert claimed_at is not None
    await until(lambda: not running.pool.running(), 10)
    now = running.services.database.clock()()
    assert now - claimed_at < timedelta(seconds=2.5)
    await until(lambda: _first_outcome(running, task_id))
    assert (await running.outcomes(task_id))[0] == "released"  # nobody had it meanwhile, so it is not charged


async def _first_outcome(running: Running, task_id: int) -> str | None:
    return next(iter(await running.outcomes(task_id)), None)


async def test_a_renewal_that_failed_is_tried_again_before_the_fence(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew, failures = TaskQueue.renew, iter(range(2))

    async def flaky(self: TaskQueue, leases: Any) -> Any:
        if next(failures, None) is not None:
            raise StoreUnavailable("away for a moment")
        return await renew(self, leases)

    monkeypatch.setattr(TaskQueue, "renew", flaky)
    running = await start(lease_seconds=1.5, sweep_seconds=3600)
    task = await running.run("wait_plain", payload={"folder": str(tmp_path), "seconds": 3})
    assert (task.status, await running.outcomes(task.id)) == (Status.COMPLETED, ["completed"])


@pytest.mark.parametrize("processes", [1, 3])
async def test_neither_kind_starves_the_other(start: Start, tmp_path: Path, processes: int) -> None:
    """Every runner is kept busy with one kind, and more of it waits; an urgent task of the other kind still runs soon."""
    running = await start(processes=processes, concurrency=4)
    payload = {"folder": str(tmp_path), "seconds": 0.3}
    for many, one in (("wait_shared", "echo"), ("wait_plain", "echo_shared")):
        crowd = [await running.submit(many, payload=payload) for _ in range(30 * processes)]
        await until(lambda: len(running.pool.running()) >= processes)
        urgent = await running.submit(one, priority="critical")
        task = await running.ended(urgent, 10)
        assert task.status is Status.COMPLETED
        assert (await running.get(crowd[-1])).status is Status.PENDING, "the crowd was done first: nothing was shown"
        for id_ in crowd:
            with contextlib.suppress(Conflict):
                await running.services.tasks.cancel(id_)


async def test_a_cancelled_checkpoint_call_costs_nobody_anything(start: Start) -> None:
    running = await start()
    task = await running.run("impatient_checkpoint")
    assert (task.status, task.deaths, task.result) == (Status.COMPLETED, 0, '"went on"')


async def test_a_loop_that_logs_does_not_keep_the_worker_from_its_work(start: Start, tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as lines:
        running = await start(processes=2)
        task_id = await running.submit("log_flood", payload={"folder": str(tmp_path), "seconds": 1.5})
        await until(lambda: (tmp_path / f"began-{task_id}-1").exists())
        began = time.monotonic()
        assert (await running.run("echo")).status is Status.COMPLETED
        assert time.monotonic() - began < 5
        assert (await running.ended(task_id)).status is Status.COMPLETED
    assert len([line for line in lines if line["event"] == "flood"]) < 1000
    assert any("lines_dropped" in line for line in lines)


async def test_a_runner_that_cannot_be_started_is_tried_again(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await start(processes=1)
    await running.run("echo")
    real, failures = asyncio.create_subprocess_exec, iter(range(2))

    async def refused(*arguments: Any, **options: Any) -> Any:
        if next(failures, None) is not None:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return await real(*arguments, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refused)
    running.pool.roster.runners[0].kill()
    assert (await running.run("echo")).status is Status.COMPLETED


async def test_a_lease_that_went_to_somebody_else_stops_the_run_here(start: Start, tmp_path: Path) -> None:
    running = await start(lease_seconds=0.6, sweep_seconds=3600)
    task_id = await running.submit("wait_plain", payload={"folder": str(tmp_path), "seconds": 60})
    await until(lambda: list(tmp_path.glob("began-*")))
    async with running.services.database.write() as connection:
        await connection.exec_driver_sql(
            f"UPDATE tasks SET lease = lease + 1, worker_id = 'other' WHERE id = {task_id}"
        )
    await until(lambda: not running.pool.running(), 10)
    task = await running.get(task_id)
    assert (task.status, task.worker_id, task.lease) == (Status.RUNNING, "other", 2)


async def test_a_task_that_waits_behind_a_slow_one_is_given_back(start: Start, tmp_path: Path) -> None:
    """Short work is held ahead; when something slow comes in front, it is not kept from the others."""
    running = await start(processes=1)
    for _ in range(3):
        await running.run("echo")
    first = await running.submit("wait_plain", payload={"folder": str(tmp_path), "seconds": 20})
    await until(lambda: list(tmp_path.glob("began-*")))
    (runner,) = running.pool.roster.runners
    behind = await running.submit("echo")
    async with running.services.database.write() as connection:
        row = (await connection.exec_driver_sql(f"SELECT rank FROM tasks WHERE id = {behind}")).one()
    exchange = await running.services.queue.exchange(
        "test", [], lambda heads: [Wish(tuple((head.queue, head.task_type) for head in heads), 1)]
    )
    running.pool.place(exchange.claimed, {})
    assert len(runner.given) == 2
    task = await running.in_status(behind, Status.PENDING)
    assert (task.attempts, task.rank) == (0, row[0])
    running.worker._look.set()
    await until(lambda: not running.worker._look.is_set())
    assert [one.task.id for one in running.pool.running()] == [first]  # and it is not claimed ahead again
    (tmp_path / "go").touch()
    await running.ended(first)
    assert (await running.ended(behind)).status is Status.COMPLETED
