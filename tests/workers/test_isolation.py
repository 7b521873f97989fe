"""What user code does to its runner costs its own attempt, whatever it is: real faults in real runners."""

import contextlib
import itertools
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
import structlog

from app.core.task import FailureReason, Status, Task
from app.models.dead_letters import DeadFilter
from app.workers.guard import descendants
from app.workers.oom import OomKills
from app.workers.output import MarkedLines, unmarked
from tests.chaos.conftest import SEED, amount
from tests.conftest import until
from tests.isolation_executors import BUSY, DEADLY, DEAF, HARMLESS, RAISING, RESULTS
from tests.walk.conftest import House, ended, is_alive
from tests.workers.conftest import Running, Start

MODULE = "tests.isolation_executors"
MODULES = ("tests.sample_executors", MODULE)
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux kernels tell a process's children and limits")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    house.settings["EXECUTOR_MODULES"] = ",".join(MODULES)
    yield house
    await house.close()


def told(task: Task) -> tuple[Any, str]:
    """Why a task failed, and its error in words."""
    return task.failure_reason, (
        f"{orjson.loads(task.error)['type']}: {orjson.loads(task.error)['message']}" if task.error else ""
    )


async def slots_are_back(running: Running) -> None:
    """Every runner is there and idle again, and takes work."""
    processes = running.worker._options.processes
    await until(
        lambda: len(running.pool.roster.serving) == processes
        and all(one.load.idle for one in running.pool.roster.serving)
    )
    ids = [await running.submit("echo", payload={"number": number}) for number in range(3 * processes)]
    for number, id_ in enumerate(ids):
        assert (await running.ended(id_)).result == f'{{"number":{number}}}'


async def mistakes(
    running: Running, task_type: str, expected: dict[str, tuple[FailureReason | None, str]]
) -> dict[str, tuple[Any, str]]:
    """Run each way once; those that did not end with the reason and the words expected (a pattern)."""
    wrong = {}
    for how, (reason, words) in expected.items():
        try:
            found = told(await running.run(task_type, payload={"how": how}))
        except TimeoutError:
            found = (None, "it never ended")
        if found[0] != reason or not re.search(words, found[1]):
            wrong[how] = found
    return wrong


# A7: crashes, garbage, exceptions, results.


@on_linux
async def test_each_way_to_kill_the_runner_costs_one_attempt_with_its_reason(start: Start, tmp_path: Path) -> None:
    """A sibling in the other runner goes on all the while, and every slot comes back."""
    expected = dict.fromkeys(DEADLY, (FailureReason.LOST, "^Lost: its runner was killed by SIGKILL$"))
    expected |= dict.fromkeys(("segfault", "grow_stack"), (FailureReason.LOST, "killed by SIGSEGV$"))
    expected |= {
        "native_abort": (FailureReason.LOST, "killed by SIGABRT$"),
        "alarm": (FailureReason.LOST, "killed by SIGALRM$"),
        "exit_at_once": (FailureReason.LOST, "exited with status 3$"),
        "exit_with_success": (FailureReason.LOST, "exited with status 0$"),
        "shut_socket": (FailureReason.LOST, "exited with status 0$"),
        "impostor": (FailureReason.LOST, "exited with status 1$"),
    }
    expected |= dict.fromkeys(("daemonise", "die_when_idle"), (FailureReason.LOST, "exited with status 1$"))
    expected |= {"flood_and_exit": (FailureReason.LOST, "exited with status 4$")}
    broken = ("write_garbage", "write_no_json", "write_wrong_shape", "write_no_object")
    expected |= dict.fromkeys(broken, (FailureReason.LOST, "socket brought something that is no message of ours"))
    running = await start(processes=2, executor_modules=MODULES)
    sibling = await running.submit("wait_plain", payload={"folder": str(tmp_path), "seconds": 100}, timeout_seconds=100)
    await until(lambda: list(tmp_path.glob("began-*")))
    assert await mistakes(running, "misbehave", expected) == {}
    assert (await running.get(sibling)).status is Status.RUNNING
    (tmp_path / "go").touch()
    task = await running.ended(sibling)
    assert (task.status, task.attempts, task.deaths) == (Status.COMPLETED, 1, 0)
    await slots_are_back(running)


async def test_whatever_is_raised_is_a_failed_attempt_with_its_reason(start: Start) -> None:
    expected = dict.fromkeys(RAISING, (FailureReason.EXHAUSTED, "."))
    expected |= {
        "sys_exit": (FailureReason.EXHAUSTED, "^SystemExit: 3$"),
        "keyboard_interrupt": (FailureReason.EXHAUSTED, "^KeyboardInterrupt: "),
        "unpicklable": (FailureReason.EXHAUSTED, "^Unpicklable: holds a lock$"),
        "exits_when_shown": (FailureReason.EXHAUSTED, r"cannot be shown: SystemExit\)"),
        "without_name": (FailureReason.EXHAUSTED, "^WithoutName: "),
        "huge_message": (FailureReason.EXHAUSTED, "^ValueError: x{1999}…$"),
        "endless_recursion": (FailureReason.EXHAUSTED, "^RecursionError: "),
        "failed_with_cause": (FailureReason.ERROR, "^Fail: because of that$"),
    }
    running = await start(processes=1, executor_modules=MODULES)
    await running.run("echo")
    (runner,) = running.pool.roster.runners
    assert await mistakes(running, "misbehave", expected) == {}
    await slots_are_back(running)
    assert running.pool.roster.runners == [runner]


async def test_results_that_no_store_or_reader_takes_fail_with_their_reason(start: Start) -> None:
    unstorable = "^Unstorable: the result cannot be stored as JSON: "
    expected = dict.fromkeys(RESULTS, (FailureReason.ERROR, unstorable))
    expected |= dict.fromkeys(
        ("nul", "nul_key"), (FailureReason.ERROR, "^Unstorable: the result holds a NUL character")
    )
    expected |= {
        "large": (FailureReason.ERROR, "^Unstorable: the result is 100000002 bytes as JSON; the limit is 1048576$"),
        "deep": (FailureReason.ERROR, unstorable + "it is nested deeper than 254 levels"),
        "deepest": (FailureReason.ERROR, unstorable + "maximum recursion depth"),
        "colliding": (FailureReason.ERROR, unstorable + "The key '1' appears twice in one object"),
        "colliding_words": (FailureReason.ERROR, unstorable + "The key 'null' appears twice"),
        "colliding_in_model": (FailureReason.ERROR, unstorable + "The key '1' appears twice"),
        "large_integer": (FailureReason.ERROR, unstorable + "The integer 9223372036854775808... does not fit 64 bits"),
        "nan_in_model": (FailureReason.ERROR, unstorable + "Out of range float"),
        "evil": (FailureReason.EXHAUSTED, "^SystemExit: no items$"),
    }
    running = await start(processes=1, executor_modules=MODULES)
    assert await mistakes(running, "give", expected) == {}
    await slots_are_back(running)


async def test_what_user_code_changes_in_its_process_is_put_back_for_the_next(start: Start) -> None:
    running = await start(processes=1, executor_modules=MODULES)
    before = orjson.loads((await running.run("who")).result or "")
    (runner,) = running.pool.roster.runners
    for how in HARMLESS:
        task = await running.run("misbehave", payload={"how": how})
        assert (task.status, task.result) == (Status.COMPLETED, '"went on"'), how
        with structlog.testing.capture_logs() as lines:

            async def says_hello(lines: Any = lines) -> bool:
                """It may take a second: after a flood the rest is counted only."""
                assert orjson.loads((await running.run("who")).result or "") == before
                return any(line.get("line") == "hello from 0" for line in lines)

            await until(says_hello)
    assert not before["default_signals"]
    assert running.pool.roster.runners == [runner]


@on_linux
@pytest.mark.timeout(1800)
async def test_poison_among_good_work_is_given_up_and_the_good_completes(start: Start) -> None:
    """Matrix A7: every kind of poison, among twenty times as many good tasks."""
    running = await start(processes=2, executor_modules=MODULES, retry_base_seconds=0.01)
    kinds = ("segfault", "exit_at_once", "killed", "unpicklable", "sys_exit", "flood_and_exit", "write_garbage")
    good, bad = [], []
    for number in range(amount(80, 2000)):
        good.append(await running.submit("echo", payload={"number": number}))
        if number % 20 == 10 or number < len(kinds):
            bad.append(await running.submit("poison", payload={"how": kinds[len(bad) % len(kinds)]}))
    for id_ in bad:
        task = await running.ended(id_, 600)
        counted = Counter(await running.outcomes(id_))
        assert (task.status, task.attempts, counted["lost"] + counted["error"]) == (Status.FAILED, 2, 2)
        assert told(task)[1]
    for number, id_ in enumerate(good):
        task = await running.ended(id_, 600)
        assert (task.status, task.result, task.attempts) == (Status.COMPLETED, f'{{"number":{number}}}', 1)
    dead = await running.services.dead_letters.search(DeadFilter(), 1000)
    assert sorted(task.id for task in dead) == sorted(bad)
    assert not running.work.done()
    await slots_are_back(running)


# A9, A10: code that does not listen.


@on_linux
@pytest.mark.parametrize("how", DEAF)
async def test_a_time_limit_ends_code_that_does_not_listen(start: Start, how: str) -> None:
    running = await start(processes=1, executor_modules=MODULES, stop_grace_seconds=0.2)
    await running.run("echo")
    task = await running.run("deaf", payload={"how": how})
    assert told(task) == (
        FailureReason.TIMEOUT,
        "TimeLimitExceeded: ran longer than its limit of 0.3 s and was stopped",
    )
    assert task.started_at is not None
    assert task.finished_at is not None
    assert (task.finished_at - task.started_at).total_seconds() < 0.3 + 0.2 + 1
    await slots_are_back(running)


@pytest.mark.parametrize("how", ["block", "swallow"])
async def test_a_time_limit_ends_a_coroutine_that_does_not_listen(start: Start, how: str) -> None:
    running = await start(processes=1, executor_modules=MODULES, stop_grace_seconds=0.2)
    assert told(await running.run("deaf_shared", payload={"how": how}))[0] == FailureReason.TIMEOUT
    await slots_are_back(running)


@pytest.mark.timeout(600)
async def test_code_that_holds_the_interpreter_keeps_its_lease(start: Start) -> None:
    """Matrix A9: for three leases hardly a byte comes from the runner; the worker renews all the same."""
    running = await start(processes=3, executor_modules=MODULES, lease_seconds=1, sweep_seconds=0.1)
    renewed: list[float] = []
    renew = running.services.queue.renew

    async def noted(leases: Any) -> Any:
        renewed.append(time.monotonic())
        return await renew(leases)

    running.services.queue.renew = noted  # type: ignore[method-assign]  # to hear when
    ids = [
        await running.submit("busy", payload={"how": how, "number": 3000}) for how in [*BUSY] * amount(1, 4)
    ]  # long: 20
    for id_ in ids:
        task = await running.ended(id_, 120)
        assert (task.status, task.attempts, task.lease) == (Status.COMPLETED, 1, 1)
    longest = max(later - earlier for earlier, later in itertools.pairwise(renewed))
    print(f"{len(ids)} attempts of three leases; renewed every {longest:.2f} of {1 / 3:.2f} leases at the longest")


@on_linux
@pytest.mark.timeout(1800)
async def test_code_that_does_not_listen_is_ended_again_and_again_and_leaves_nothing(
    start: Start, tmp_path: Path
) -> None:
    """Matrix A10: any way not to listen, ended by its time limit, which is tried again, or by a cancel."""
    random = Random(SEED)
    running = await start(
        processes=1, executor_modules=MODULES, stop_grace_seconds=0.2, retry_base_seconds=0.01, poison_after=1000
    )
    rounds = amount(4, 50)
    for number in range(rounds):
        how, cancelled = random.choice([*DEAF]), number % 2 == 1
        limits = {"timeout_seconds": 60} if cancelled else {"max_attempts": 2}
        task_id = await running.submit("deaf", payload={"how": how, "folder": str(tmp_path)}, **limits)
        await until((tmp_path / f"began-{task_id}").exists)
        family = {pid for runner in running.pool.roster.runners for pid in (runner.pid, *descendants(runner.pid))}
        if cancelled:
            await running.services.tasks.cancel(task_id)
        task = await running.ended(task_id)
        assert task.status is (Status.CANCELLED if cancelled else Status.FAILED), how
        assert await running.outcomes(task_id) == (["cancelled"] if cancelled else ["timeout", "timeout"]), how
        assert not any(is_alive(pid) for pid in family), how
    await slots_are_back(running)
    print(f"{rounds} rounds, CHAOS_SEED={SEED}")


# A10, A11: nothing is left behind.


def family(folder: Path) -> list[int]:
    """The pids that `have_children` wrote down, its own included."""
    return [int(file.name.removeprefix("pid-")) for file in folder.glob("pid-*")]


@pytest.fixture
def no_leftovers(tmp_path: Path) -> Iterator[None]:
    yield
    for pid in family(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@on_linux
@pytest.mark.usefixtures("no_leftovers")
@pytest.mark.parametrize("how", ["die", "wait"])
async def test_children_go_with_a_runner_that_dies_or_is_killed(start: Start, tmp_path: Path, how: str) -> None:
    running = await start(processes=1, executor_modules=MODULES, stop_grace_seconds=0.2)
    limit = 60 if how == "die" else 2
    payload = {"how": how, "folder": str(tmp_path)}
    task = await running.run("have_children", payload=payload, timeout_seconds=limit)
    assert told(task)[0] == (FailureReason.LOST if how == "die" else FailureReason.TIMEOUT)
    assert len(family(tmp_path)) == 5
    assert [pid for pid in family(tmp_path) if is_alive(pid)] == []
    await slots_are_back(running)


@on_linux
@pytest.mark.usefixtures("no_leftovers")
async def test_children_of_an_attempt_that_returned_live_as_long_as_the_runner(start: Start, tmp_path: Path) -> None:
    """A pool that user code keeps for its next attempt is of use; it must not outlive the worker."""
    running = await start(processes=1, executor_modules=MODULES)
    assert (await running.run("have_children", payload={"folder": str(tmp_path)})).status is Status.COMPLETED
    await running.run("echo")
    assert all(is_alive(pid) for pid in family(tmp_path))
    await running.stop()
    assert [pid for pid in family(tmp_path) if is_alive(pid)] == []


@on_linux
@pytest.mark.usefixtures("no_leftovers")
async def test_nothing_outlives_a_worker_that_was_killed(house: House) -> None:
    """Matrix A11: kill -9 of the parent, with children of user code in every disguise, gone within a second."""
    _, client = await house.api()
    worker = await house.worker()
    payload = {"how": "wait", "folder": str(house.folder)}
    await client.post("/tasks", json={"task_type": "have_children", "payload": payload})
    await until(lambda: (house.folder / "started").exists())
    everyone = {*family(house.folder), *descendants(worker.pid)}
    assert len(everyone) >= 6
    assert all(is_alive(pid) for pid in everyone)
    await worker.kill()
    await until(lambda: not any(is_alive(pid) for pid in everyone), 1)


@on_linux
@pytest.mark.usefixtures("no_leftovers")
async def test_orphans_of_user_code_are_buried_while_the_runner_lives(start: Start, tmp_path: Path) -> None:
    """The guard adopts them; a container has no init that would."""
    running = await start(processes=1, executor_modules=MODULES)
    await running.run("have_children", payload={"folder": str(tmp_path)})
    (runner,) = running.pool.roster.runners
    orphans = [pid for pid in family(tmp_path) if parent_of(pid) == runner.pid and pid != min(descendants(runner.pid))]
    assert len(orphans) == 1
    os.kill(orphans[0], signal.SIGKILL)
    await until(lambda: not Path(f"/proc/{orphans[0]}").exists())


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


# A12: runners that do not get ready.


@pytest.fixture
def loads_badly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a module with the executor `loaded` that does something when a runner loads it."""
    # Only the worker's own process is to load it well.
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "app.workers.runner", raising=False)

    def make(act: str) -> str:
        (tmp_path / "loads_badly.py").write_text(
            "import os, sys, time\n"
            "from pathlib import Path\n"
            "from pydantic import BaseModel\n"
            "from app.services.executors import executor\n"
            f"here = Path({str(tmp_path)!r})\n"
            f"if 'app.workers.runner' in sys.modules: {act}\n"
            "class P(BaseModel): pass\n"
            "@executor('loaded', payload=P)\n"
            "def run(payload, context): return 1\n"
        )
        return "loads_badly"

    return make


@on_linux
async def test_a_runner_that_hangs_while_it_starts_does_not_hold_up_a_stop(
    start: Start, loads_badly: Callable[[str], str]
) -> None:
    """It has no slot until it is ready, and goes with its worker."""
    running = await start(executor_modules=(loads_badly("time.sleep(100)"),))
    task_id = await running.submit("loaded")
    await until(lambda: hasattr(running.worker, "_pool") and running.pool.roster.runners)
    (runner,) = running.pool.roster.runners
    await until(lambda: len(descendants(runner.pid)) == 1)
    assert not running.pool.has_room
    pids = [runner.pid, *descendants(runner.pid)]
    await running.stop()
    assert (await running.get(task_id)).attempts == 0
    assert not any(is_alive(pid) for pid in pids)


@on_linux
async def test_a_runner_that_hangs_while_it_starts_is_replaced_and_the_others_work_on(
    start: Start, loads_badly: Callable[[str], str], tmp_path: Path
) -> None:
    module = loads_badly("(here / 'hung').exists() or ((here / 'hung').touch(), time.sleep(100))")
    with structlog.testing.capture_logs() as lines:
        running = await start(processes=2, executor_modules=(module,), runner_start_seconds=3)
        assert (await running.run("loaded")).status is Status.COMPLETED
        hung = [runner for runner in running.pool.roster.runners if not runner.ready]
        assert len(hung) == 1
        await until(
            lambda: len(running.pool.roster.runners) == 2
            and all(runner.ready for runner in running.pool.roster.runners)
        )
    assert not is_alive(hung[0].pid)
    died = [line["evidence"] for line in lines if line["event"] == "runner died"]
    assert died[0] == "its runner was not ready after 3 s (RUNNER_START_SECONDS)"


@on_linux
async def test_runners_that_die_as_they_start_are_tried_ever_more_slowly_and_an_alarm_is_given(
    start: Start, loads_badly: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are not concerned: what waits is theirs meanwhile, and no attempt is used."""
    monkeypatch.setattr("app.workers.worker.BEAT_SECONDS", 0.05)
    module = loads_badly("(here / 'mended').exists() or os._exit(7)")
    with structlog.testing.capture_logs() as lines:
        running = await start(executor_modules=(MODULE, module))
        task_id = await running.submit("loaded")

        async def state() -> str:
            return (await running.services.insights.workers())[0].state

        async def is_failing() -> bool:
            return await state() == "failing"

        await until(is_failing)
        await until(lambda: running.pool.roster._pause_seconds > 0.5)
        other = await start(executor_modules=(MODULE,))
        assert (await other.run("who")).status is Status.COMPLETED
        assert (await running.get(task_id)).attempts == 0
        (tmp_path / "mended").touch()
        assert (await running.ended(task_id)).attempts == 1
        assert not running.pool.roster.failing
    died = [line for line in lines if line["event"] == "runner died"]
    assert {line["evidence"] for line in died} == {"its runner exited with status 7"}
    (alarm,) = (line for line in lines if line["event"] == "runners die before they are ready, trying again")
    assert (alarm["log_level"], alarm["evidence"]) == ("error", "its runner exited with status 7")
    assert lines.index(alarm) < lines.index(died[3])  # with the third in a row


# A8: memory.


@on_linux
async def test_a_memory_limit_is_a_failed_attempt_that_may_succeed_next_time(start: Start) -> None:
    running = await start(processes=1, executor_modules=MODULES, runner_memory_bytes=100 * 2**20)
    task = await running.run("hoard", payload={"how": "once", "number": 300})
    assert (task.status, task.result, await running.outcomes(task.id)) == (
        *(Status.COMPLETED, '"attempt 2"'),
        ["error", "completed"],
    )
    task = await running.run("hoard", payload={"number": 300})
    reason, words = told(task)
    assert (reason, task.deaths) == (FailureReason.EXHAUSTED, 0)
    assert words == "MemoryError: out of memory: a runner may have 104857600 bytes (RUNNER_MEMORY_BYTES)"
    await slots_are_back(running)


@on_linux
async def test_a_runner_that_ran_out_of_memory_is_replaced(start: Start) -> None:
    """What is left of it would be too little for whoever comes next."""
    running = await start(processes=1, executor_modules=MODULES, runner_memory_bytes=100 * 2**20)
    before = orjson.loads((await running.run("who")).result or "")["pid"]
    await running.run("hoard", payload={"number": 300}, max_attempts=1)
    assert orjson.loads((await running.run("who")).result or "")["pid"] != before


def test_kills_for_want_of_memory_are_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for lines, counter in (
        ("0::/ours\n", "ours/memory.events"),
        ("0::/seen/from/outside\n", "memory.events"),
        ("4:memory:/ours\n0::/\n", "memory/ours/memory.oom_control"),
    ):
        root = tmp_path / str(len(lines))
        file = root / counter
        file.parent.mkdir(parents=True)
        (root / "self").mkdir()
        (root / "self/cgroup").write_text(lines)
        file.write_text("oom 9\noom_kill 2\noom_group_kill 7\n")
        kills = OomKills(proc=root, root=root)
        assert not kills.more()
        file.write_text("oom 10\noom_kill 3\noom_group_kill 8\n")
        assert kills.more()
        assert not kills.more()
        file.write_text("oom 10\noom_kill 5\noom_group_kill 8\n")
        assert [kills.more() for _ in range(3)] == [True, True, False]
        file.write_text("oom 10\noom_kill 7\noom_group_kill 8\n")
        assert kills.more()
        monkeypatch.setattr("app.workers.oom.NEWS_SECONDS", -1)
        assert not kills.more()
        monkeypatch.undo()
    assert not OomKills(proc=tmp_path, root=tmp_path).more()


@pytest.fixture
def small_group(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a control group with so many MiB of memory; skips where this process may not."""
    made: list[Path] = []

    def make(mebibytes: int) -> Path:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        groups = {controllers: group.lstrip("/") for _, controllers, group in (line.split(":", 2) for line in lines)}
        parent = Path("/sys/fs/cgroup") / (f"memory/{groups['memory']}" if "memory" in groups else groups.get("", ""))
        group = parent / f"test-{os.getpid()}"
        try:
            group.mkdir()
            made.append(group)
            limits = [group / "memory.limit_in_bytes", group / "memory.max"]
            next(file for file in limits if file.exists()).write_text(str(mebibytes * 2**20))
        except (OSError, StopIteration):
            pytest.skip("needs the right to make a control group for memory")
        return group

    yield make
    for group in made:
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        deadline = time.monotonic() + 5
        while group.exists() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):  # until the last one is buried
                group.rmdir()


KERNELS = "killed by SIGKILL, the kernel's, for want of memory"


@on_linux
@pytest.mark.timeout(600)
async def test_a_kill_for_want_of_memory_says_so(house: House, small_group: Callable[[int], Path]) -> None:
    """Matrix A8, the whole worker in a group of 250 MB."""
    group = small_group(250)
    _, client = await house.api()
    worker = await house.start("run_worker.py", "--processes", "1")
    (group / "cgroup.procs").write_text(str(worker.pid))
    await worker.says("worker started")
    for _ in range(amount(1, 30)):
        body = {"task_type": "hoard", "payload": {"number": 600}, "max_attempts": 1}
        task_id = (await client.post("/tasks", json=body)).json()["id"]
        task = (await client.get(f"/tasks/{task_id}", params={"wait": 30})).json()
        assert (task["failure_reason"], task["attempts"]) == ("lost", 1)
        assert KERNELS in task["error"]["message"]
        again = (await client.post("/tasks", json={"task_type": "echo", "payload": {"number": 1}})).json()["id"]
        assert (await client.get(f"/tasks/{again}", params={"wait": 30})).json()["status"] == "completed"
    assert worker.process.returncode is None


@on_linux
async def test_want_of_memory_costs_a_runner_and_not_its_larger_worker(
    house: House, small_group: Callable[[int], Path]
) -> None:
    """Matrix A8: four runners, each smaller than the worker, together want more than there is; two of them have room."""
    group = small_group(1000)
    _, client = await house.api()
    worker = await house.start("run_worker.py", "--processes", "4", POISON_AFTER="1000")
    (group / "cgroup.procs").write_text(str(worker.pid))
    await worker.says("worker started")
    await until(lambda: len(descendants(worker.pid)) == 8)
    # What a runner needs to run anything at all is in use before it is measured.
    body = {"task_type": "hoard", "payload": {"how": "sit", "number": 1}}
    for task_id in [(await client.post("/tasks", json=body)).json()["id"] for _ in range(4)]:
        await ended(client, task_id)
    used = next(file for file in (group / "memory.usage_in_bytes", group / "memory.current") if file.exists())
    limit = next(file for file in (group / "memory.limit_in_bytes", group / "memory.max") if file.exists())
    limit.write_text(str(int(used.read_text()) + 150 * 2**20))
    # Four that begin again at once would kill each other for ever.
    body = {
        "task_type": "hoard",
        "payload": {"how": "sit", "number": 60},
        "max_attempts": 100,
        "retry": {"base_seconds": 1, "ceiling_seconds": 5},
    }
    ids = [(await client.post("/tasks", json=body)).json()["id"] for _ in range(4)]
    tasks = [await ended(client, task_id) for task_id in ids]
    assert worker.process.returncode is None
    assert {task["status"] for task in tasks} == {"completed"}
    attempts = [(await client.get(f"/tasks/{task_id}/attempts")).json()["items"] for task_id in ids]
    lost = [one["error"]["message"] for several in attempts for one in several if one["outcome"] == "lost"]
    assert len(lost) > 0
    assert all(KERNELS in message for message in lost)


# Replacing runners.


async def test_a_runner_is_replaced_after_its_attempts_and_nobody_is_charged(start: Start) -> None:
    with structlog.testing.capture_logs() as lines:
        running = await start(processes=2, executor_modules=MODULES, runner_max_tasks=7)
        ids = [await running.submit("who") for _ in range(60)]
        tasks = [await running.ended(id_) for id_ in ids]
    assert {(task.status, task.attempts, task.deaths) for task in tasks} == {(Status.COMPLETED, 1, 0)}
    ran = Counter(orjson.loads(task.result or "")["pid"] for task in tasks)
    assert max(ran.values()) == 7
    assert not any(line["event"] == "runner died" for line in lines)
    await until(lambda: len(running.pool.roster.runners) == 2)
    await slots_are_back(running)


@on_linux
async def test_a_runner_that_has_grown_is_replaced_when_its_attempt_is_over(start: Start) -> None:
    running = await start(processes=1, executor_modules=MODULES, runner_max_memory_bytes=100 * 2**20)
    before = [orjson.loads((await running.run("who")).result or "")["pid"] for _ in range(3)]
    assert len(set(before)) == 1
    task = await running.run("hoard", payload={"how": "keep", "number": 120})
    assert (task.status, task.attempts) == (Status.COMPLETED, 1)
    assert orjson.loads((await running.run("who")).result or "")["pid"] != before[0]
    await until(lambda: len(running.pool.roster.runners) == 1)


async def test_what_a_retiring_runner_holds_is_finished_beside_its_successor(start: Start, tmp_path: Path) -> None:
    running = await start(processes=1, executor_modules=MODULES, runner_max_tasks=2)
    payload = {"folder": str(tmp_path), "seconds": 100}
    long = await running.submit("wait_shared", payload=payload, timeout_seconds=100)
    await until(lambda: list(tmp_path.glob("began-*")))
    (old,) = running.pool.roster.runners
    old.finished = 2
    assert (
        await running.run("echo_shared")
    ).status is Status.COMPLETED  # no room in the old one: it needs the successor
    assert old in running.pool.roster.runners
    assert (await running.get(long)).status is Status.RUNNING
    await running.services.tasks.cancel(long)
    assert (await running.ended(long)).attempts == 1
    await until(lambda: old not in running.pool.roster.runners)


# What is said.


async def test_lines_of_short_attempts_are_logged_with_their_task(start: Start) -> None:
    with structlog.testing.capture_logs() as lines:
        running = await start(processes=2, executor_modules=MODULES)
        plain = [await running.submit("who", payload={"number": number}) for number in range(5)]
        shared = [await running.submit("who_shared", payload={"number": number}) for number in range(5)]
        for id_ in (*plain, *shared):
            assert (await running.ended(id_)).status is Status.COMPLETED
        expected = {(f"hello from {number}", id_) for number, id_ in enumerate(plain)}
        expected |= {(f"part {part} of {number}", id_) for number, id_ in enumerate(shared) for part in range(3)}
        expected |= {(f"thread of {number}", id_) for number, id_ in enumerate(shared)}
        found = lambda: {(line["line"], *line["tasks"]) for line in lines if line["event"] == "printed"}  # noqa: E731
        await until(lambda: found() == expected)


async def test_the_last_words_before_a_crash_are_logged_with_their_task(start: Start) -> None:
    with structlog.testing.capture_logs() as lines:
        running = await start(processes=1, executor_modules=MODULES)
        task = await running.run("last_words")
    assert task.failure_reason == FailureReason.LOST
    printed = [(line["line"], line["tasks"]) for line in lines if line["event"] == "printed"]
    assert ("these are my last words", [task.id]) in printed
    assert ("native words", [task.id]) in printed


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("plain", [(None, "plain")]),
        ("", [(None, "")]),
        ("\x1e5 6\x1fmine", [((5, 6), "mine")]),
        ("native\x1e5 6\x1fmine", [(None, "native"), ((5, 6), "mine")]),
        ("\x1e5 6\x1fmine\x1e7 8\x1fyours", [((5, 6), "mine"), ((7, 8), "yours")]),
        ("\x1eno mark\x1f", [(None, "\x1eno mark\x1f")]),
    ],
)
def test_a_line_is_taken_apart_at_its_marks(line: str, parts: list[Any]) -> None:
    assert unmarked(line) == parts


async def test_fields_of_log_lines_keep_their_types_and_do_not_pass_for_ours(start: Start) -> None:
    with structlog.testing.capture_logs() as lines:
        running = await start(processes=1, executor_modules=MODULES)
        task = await running.run("log_fields")
    (line,) = (line for line in lines if line["event"] == "fields")
    assert {name: line[name] for name in ("number", "ratio", "yes", "none", "list")} == {
        "number": 1,
        "ratio": 0.5,
        "yes": True,
        "none": None,
        "list": [1, "a"],
    }
    assert (line["task"], line["field_task"], line["field_event"], line["field__record"]) == (task.id, 99, "mine", 1)
    assert (line["object"], line["nan"], len(line["long"])) == ("<class 'object'>", "nan", 500)
    assert "exc_info" not in line


async def test_the_traceback_of_a_failed_attempt_is_in_the_log_unless_the_executor_gave_a_reason(start: Start) -> None:
    with structlog.testing.capture_logs() as lines:
        running = await start(processes=1, executor_modules=MODULES)
        broken = await running.run("raise_error")
        refused = await running.run("signal_raised", payload={"what": "fail"})
        caused = await running.run("misbehave", payload={"how": "failed_with_cause"})
        # It is written while the next exchange runs, a moment after the end is stored.
        await until(lambda: any(line.get("task") == caused.id and line["event"] == "failed" for line in lines))
    ended = {line["task"]: line for line in lines if line["event"] in ("failed", "retrying")}
    assert "sample_executors.py" in ended[broken.id]["traceback"]
    assert "traceback" not in ended[refused.id]
    assert "KeyError: 'the cause'" in ended[caused.id]["traceback"]


def test_what_is_printed_cannot_speak_for_another_attempt(tmp_path: Path) -> None:
    path = tmp_path / "printed"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    stream = MarkedLines(descriptor)
    stream.alone = (7, 1)
    said = "hello \x1e9 1\x1fforged"
    assert stream.write(said + "\n") == len(said) + 1
    os.close(descriptor)
    assert unmarked(path.read_text().rstrip("\n")) == [((7, 1), "hello \u241e9 1\u241fforged")]
