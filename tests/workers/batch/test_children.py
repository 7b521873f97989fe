"""Batches with real children; only the service around them is recorded."""

import asyncio
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.services.executors import Context, Fail, RecordedReports, RunnerSetup, StopRequested
from app.services.registry import ExecutorRegistry, load_executors
from app.workers.batch import run as run_module
from app.workers.batch.crew import CrewBroken
from app.workers.batch.payload import BatchProcessing
from app.workers.batch.run import Batch

MODULES = ("tests.batch_executors",)
EXECUTORS = load_executors(MODULES)
FILE = "f" * 32


class House:
    """Runs batches in a folder of the test's own, each as one attempt of task 5."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reports = RecordedReports()
        self.context = self.new_context()

    def new_context(self, **setup: Any) -> Context:
        setup = {"modules": MODULES, "files_place": str(self.folder), "stop_grace_seconds": 0.3} | setup
        checkpoints = self.reports.checkpoints
        self.context = Context(task_id=5, checkpoints=checkpoints, setup=RunnerSetup(**setup), reports=self.reports)
        return self.context

    def run(self, *items: Any, task_type: str = "deed", **payload: Any) -> dict[str, Any]:
        whole = {"items": items, "task_type": task_type, "concurrency": 1} | payload
        checked = BatchProcessing.model_validate_json(json.dumps(whole), context={"executors": EXECUTORS})
        return asyncio.run(Batch(checked, self.context, EXECUTORS).run())

    def run_file(self, lines: list[Any], **payload: Any) -> dict[str, Any]:
        self.reports.files[FILE] = "".join(json.dumps(line) + "\n" for line in lines).encode()
        return self.run(items=None, items_file_id=FILE, **payload)

    def deed(self, do: str, name: int = 0, **more: Any) -> dict[str, Any]:
        return {
            "do": do,
            "name": name,
            "journal": str(self.folder / "journal"),
            "marker": str(self.folder / "marker"),
        } | more

    def journal(self) -> list[list[int]]:
        """[name, pid, task_id, attempt] of each run, in order of time."""
        path = self.folder / "journal"
        return [[int(word) for word in line.split()] for line in path.read_text().splitlines()] if path.exists() else []

    def runs(self) -> Counter[int]:
        return Counter(name for name, *_ in self.journal())


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def in_background(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def error(one: dict[str, Any]) -> tuple[str, str]:
    assert one["status"] == "failed"
    return one["error"]["type"], one["error"]["message"]


def test_results_come_in_order_of_the_items_whatever_ends_first(house: House) -> None:
    """The first item waits for the last one to begin."""
    ways = ["wait_for_marker", *["echo"] * 38, "touch"]
    result = house.run(*(house.deed(way, name) for name, way in enumerate(ways)), concurrency=2)
    assert {key: result[key] for key in ("total", "completed", "failed")} == {"total": 40, "completed": 40, "failed": 0}
    assert result["items"] == [{"index": name, "status": "completed", "result": name} for name in range(40)]
    assert house.runs() == dict.fromkeys(range(40), 1)
    assert {task_id for _, _, task_id, _ in house.journal()} == {5}
    assert len({pid for _, pid, *_ in house.journal()}) == 2
    assert os.getpid() not in {pid for _, pid, *_ in house.journal()}


def test_an_item_fails_in_every_way_and_costs_itself_alone(house: House) -> None:
    ways = ["echo", "die", "raise", "retry", "fail", "snooze", "cancel", "exit", "set", "huge", "big_integer"]
    result = house.run(*(house.deed(way, name) for name, way in enumerate(ways)), concurrency=2)
    ends = dict(zip(ways, result["items"], strict=True))
    assert (result["completed"], result["failed"]) == (1, 10)
    assert ends["echo"]["result"] == 0
    assert error(ends["big_integer"])[0] == "Unstorable"
    assert error(ends["die"]) == ("Lost", "its runner was killed by SIGSEGV, 2 times")
    assert error(ends["raise"]) == ("ValueError", "no good")
    assert error(ends["retry"]) == ("Retry", "later")
    assert error(ends["fail"]) == ("Fail", "no use")
    assert error(ends["snooze"])[0] == "Snooze"
    assert error(ends["cancel"]) == ("Cancel", "not wanted")
    assert error(ends["exit"]) == ("SystemExit", "3")
    assert error(ends["set"])[0] == "Unstorable"
    assert error(ends["huge"]) == ("Unstorable", "the result is 2097154 bytes as JSON; the limit is 1048576")
    runs = house.runs()
    assert (runs.pop(ways.index("die")), set(runs.values())) == (2, {1})


def test_an_item_whose_child_died_is_tried_once_more(house: House) -> None:
    result = house.run(house.deed("die_once", 1), house.deed("echo", 2))
    assert (result["completed"], house.runs()) == (2, {1: 2, 2: 1})


def test_items_that_waited_behind_one_that_dies_again_and_again_all_get_done(house: House) -> None:
    """Quick items are held ahead of a child, so that many are inside when it dies; each is tried alone, and is innocent."""
    deeds = [house.deed("die" if name == 150 else "echo", name) for name in range(300)]
    result = house.run(*deeds)
    assert (result["completed"], result["failed"]) == (299, 1)
    assert error(result["items"][150])[0] == "Lost"
    assert house.runs()[150] == 2
    assert max(count for name, count in house.runs().items() if name != 150) <= 2
    assert [one["index"] for one in result["items"]] == list(range(300))


def test_an_item_that_never_ends_is_stopped_at_its_time_limit(house: House) -> None:
    """One holds the interpreter and has to be killed, one hears that it must stop. Those behind them are innocent."""
    deeds = [house.deed(do, name) for name, do in enumerate(["hang", "sleep", "echo"])]
    result = house.run(*deeds, task_type="deed_hang")
    assert [error(one) for one in result["items"][:2]] == [("TimedOut", "ran longer than 0.3 seconds")] * 2
    assert result["items"][2]["result"] == 2
    assert house.runs() == {0: 1, 1: 1, 2: 1}


def test_async_items_run_side_by_side_in_one_child(house: House) -> None:
    began = time.monotonic()
    deeds = [house.deed("sleep", name, seconds=0.2) for name in range(32)]
    result = house.run(*deeds, task_type="deed_shared", concurrency=16)
    assert result["completed"] == 32
    assert time.monotonic() - began < 3  # one after the other they take 6.4
    assert len({pid for _, pid, *_ in house.journal()}) == 1


def test_async_items_that_come_one_by_one_are_started_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each comes just when the loop in the child has nothing left and is about to end."""
    monkeypatch.setattr("app.core.slots.ahead", lambda *_: 0)
    result = house.run(*(house.deed("echo", name) for name in range(300)), task_type="deed_hang_shared")
    assert result["completed"] == 300
    assert len({pid for _, pid, *_ in house.journal()}) == 1  # no child had to be killed for an item that never began


def test_when_a_shared_child_dies_each_item_inside_is_tried_alone(house: House) -> None:
    deeds = [house.deed("die" if name == 3 else "sleep", name, seconds=0.1) for name in range(10)]
    result = house.run(*deeds, task_type="deed_shared", concurrency=5)
    assert (result["completed"], result["failed"]) == (9, 1)
    assert error(result["items"][3]) == ("Lost", "its runner was killed by SIGKILL, 2 times")
    assert house.runs()[3] == 2
    # Nobody was with it when it killed its second child.
    killer = next(pid for name, pid, *_ in reversed(house.journal()) if name == 3)
    assert [name for name, pid, *_ in house.journal() if pid == killer][-1] == 3


def test_no_more_items_run_at_a_time_than_asked_for_even_in_several_children(house: House) -> None:
    """After the death of the shared child there are more children, for those that were inside."""
    deeds = [house.deed("die" if name == 3 else "count", name, seconds=0.03) for name in range(60)]
    result = house.run(*deeds, task_type="deed_shared", concurrency=4)
    assert result["completed"] == 59
    assert len({pid for _, pid, *_ in house.journal()}) >= 3
    counts = [one["result"] for one in result["items"] if one["status"] == "completed"]
    assert max(counts) == 4


def test_an_async_item_that_blocks_the_loop_fails_and_those_beside_it_do_not(house: House) -> None:
    deeds = [house.deed("hang" if name == 1 else "sleep", name, seconds=0.01) for name in range(4)]
    result = house.run(*deeds, task_type="deed_hang_shared", concurrency=4)
    assert error(result["items"][1]) == ("TimedOut", "ran longer than 0.5 seconds")
    assert [result["items"][name]["result"] for name in (0, 2, 3)] == [0, 2, 3]


def test_items_have_as_many_attempts_as_asked_for(house: House) -> None:
    deeds = [house.deed(do, name) for name, do in enumerate(["raise_once", "raise", "fail", "retry"])]
    result = house.run(*deeds, item_attempts=3)
    assert [one["status"] for one in result["items"]] == ["completed", "failed", "failed", "failed"]
    assert house.runs() == {0: 2, 1: 3, 2: 1, 3: 3}
    assert sorted(attempt for name, _, _, attempt in house.journal() if name == 1) == [1, 2, 3]


def test_an_item_that_does_not_fit_its_task_type_is_that_items_error(house: House) -> None:
    result = house.run_file([house.deed("echo", 1), {"name": "x"}, "a text"])
    assert (result["completed"], result["failed"]) == (1, 2)
    assert [error(one)[0] for one in result["items"][1:]] == ["PayloadRefused"] * 2


def test_a_broken_line_fails_the_batch_before_any_item_runs(house: House) -> None:
    house.reports.files[FILE] = json.dumps(house.deed("echo")).encode() + b"\n{\n"
    with pytest.raises(Fail, match="line 2 of the items file: The line is not JSON"):
        house.run(items=None, items_file_id=FILE)
    assert house.journal() == []


def test_a_flood_of_prints_holds_nothing_up_and_is_logged_in_part(house: House) -> None:
    result = house.run(house.deed("flood", 7), house.deed("echo", 8))
    assert result["completed"] == 2
    printed = [fields for text, fields in house.reports.logs if text == "printed"]
    assert 1 <= len(printed) <= 300
    assert printed[0]["item"] == 0
    assert re.match("x+", printed[0]["line"])


def test_what_items_log_goes_to_the_batchs_log_with_their_index(house: House) -> None:
    house.run(house.deed("echo"), house.deed("log", 4))
    assert house.reports.logs == [("said", {"number": 4, "item": 1})]


def test_checkpoints_of_items_are_acknowledged_and_not_kept(house: House) -> None:
    assert house.run(house.deed("checkpoint"))["items"][0]["result"] == []
    assert house.reports.checkpoints == []


@pytest.mark.parametrize("task_type", ["deed", "deed_shared"])
def test_files_that_items_save_are_files_of_the_batch(house: House, task_type: str) -> None:
    result = house.run(house.deed("save"), task_type=task_type)
    assert [file.id for file in house.reports.saved] == [result["items"][0]["result"]]
    file = house.reports.saved[0]
    assert (file.name, file.content_type, file.size) == ("saved.txt", "text/plain", 5)
    assert (house.folder / file.id[:2] / file.id).read_bytes() == b"saved"


def test_many_results_go_to_a_file_in_order(house: House) -> None:
    house.new_context(max_result_bytes=20_000)
    deeds = [house.deed("raise" if name in (3, 7) else "large", name) for name in range(20)]
    result = house.run(*deeds, concurrency=2)
    file_id = result.pop("results_file_id")
    assert result == {
        "total": 20,
        "completed": 18,
        "failed": 2,
        "first_errors": [{"index": name, "error": {"type": "ValueError", "message": "no good"}} for name in (3, 7)],
    }
    lines = [json.loads(line) for line in house.reports.files[file_id].splitlines()]
    assert [one["index"] for one in lines] == list(range(20))
    assert lines[0] == {"index": 0, "status": "completed", "result": "x" * 10_000}
    saved = next(file for file in house.reports.saved if file.id == file_id)
    assert (saved.name, saved.content_type) == ("results.jsonl", "application/jsonl")


def test_results_that_no_file_may_hold_fail_the_batch(house: House) -> None:
    house.new_context(max_output_bytes=50_000)
    with pytest.raises(Fail, match="larger than 50,000 bytes"):
        house.run(*(house.deed("large", name) for name in range(20)))


def test_a_failed_item_stops_the_batch_where_that_is_asked_for(house: House) -> None:
    deeds = [house.deed("sleep", name, seconds=0.3) for name in range(10)]
    deeds[1] = house.deed("raise", 1)
    with pytest.raises(Fail) as caught:
        house.run(*deeds, concurrency=2, on_error="stop")
    found = re.fullmatch(
        r"item 1 failed: ValueError: no good \(1 completed, 1 failed, 8 not run; results in file (\w+)\)",
        str(caught.value),
    )
    assert found is not None, caught.value
    lines = [json.loads(line) for line in house.reports.files[found[1]].splitlines()]
    assert [(one["index"], one["status"]) for one in lines] == [(0, "completed"), (1, "failed")]
    assert house.runs() == {0: 1, 1: 1}


def test_a_batch_that_was_to_stop_does_so_when_it_goes_on_after_a_crash(house: House) -> None:
    house.reports.checkpoints = [{"results": '{"index":1,"status":"failed","error":{"type":"A","message":"b"}}\n'}]
    house.new_context()
    with pytest.raises(Fail, match="item 1 failed: A: b"):
        house.run(house.deed("echo"), house.deed("echo"), on_error="stop")
    assert house.journal() == []


def test_progress_counts_and_does_not_flood(house: House) -> None:
    house.run_file([house.deed("echo", name) for name in range(1200)])
    percents = [percent for percent, _, _ in house.reports.progresses]
    assert percents == sorted(percents)
    assert house.reports.progresses[-1] == (
        100.0,
        "1,200 of 1,200",
        {"total": 1200, "completed": 1200, "failed": 0, "running": 0},
    )
    assert len(percents) < 20


def test_progress_is_silent_while_nothing_changes(house: House) -> None:
    house.run(house.deed("sleep", seconds=1.5))
    assert [message for _, message, _ in house.reports.progresses] == ["0 of 1"] * 2 + ["1 of 1"]


@pytest.mark.parametrize(("task_type", "do"), [("deed", "sleep"), ("deed_hang", "hang"), ("deed_shared", "sleep")])
def test_a_stop_ends_the_children_at_once(house: House, task_type: str, do: str) -> None:
    def stop() -> None:
        wait_for(lambda: len(house.journal()) == 2)
        house.context.stop("the task was cancelled")

    in_background(stop)
    began = time.monotonic()
    with pytest.raises(StopRequested, match="the task was cancelled"):
        house.run(*(house.deed(do, name, seconds=60) for name in range(2)), task_type=task_type, concurrency=2)
    assert time.monotonic() - began < 10
    for _, pid, *_ in house.journal():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_an_attempt_goes_on_where_the_last_one_was_stopped(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the middle, whatever was stored by then is not run again, and nothing is missing."""
    monkeypatch.setattr("app.workers.batch.checkpoints.MOST_ITEMS", 20)
    marker = house.folder / "marker"
    deeds = [house.deed("wait_for_marker" if name == 70 else "echo", name) for name in range(200)]

    def stop() -> None:
        wait_for(lambda: house.reports.checkpoints and house.runs()[70] and house.runs()[199])
        house.context.stop("the worker is stopping")

    in_background(stop)
    with pytest.raises(StopRequested):
        house.run_file(deeds, concurrency=2)
    stored = {json.loads(line)["index"] for one in house.reports.checkpoints for line in _lines(house, one)}
    assert len(stored) >= 20
    assert 70 not in stored
    marker.touch()
    before = house.runs()
    house.new_context()
    result = house.run_file(deeds, concurrency=2)
    assert [one["index"] for one in result["items"]] == list(range(200))
    assert result["completed"] == 200
    again = house.runs() - before
    assert set(again) == set(range(200)) - stored
    assert ("the batch goes on", {"items_done": len(stored), "items": 200}) in house.reports.logs


def _lines(house: House, data: dict[str, str]) -> list[bytes]:
    if "results" in data:
        return data["results"].encode().splitlines()
    return house.reports.files[data["results_file_id"]].splitlines()


def test_children_that_cannot_load_their_executors_fail_the_attempt(house: House) -> None:
    house.new_context(modules=("tests.no_such_module",))
    with pytest.raises(CrewBroken, match=r"no runner for the items can be started: .*no_such_module"):
        house.run(house.deed("echo"))


def test_children_that_die_as_they_start_fail_the_attempt(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.workers.process.sys.executable", "/bin/false")
    with pytest.raises(CrewBroken, match=r"no runner for the items can be started: its runner exited with status 1"):
        house.run(house.deed("echo"))


def test_a_disk_that_is_full_fails_the_attempt_instead_of_hanging_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_module.Results, "add", full)
    with pytest.raises(OSError, match="No space left"):
        house.run(house.deed("echo"))


def test_a_task_type_that_is_gone_is_said_so(house: House) -> None:
    payload = BatchProcessing(items=["a"], task_type="gone")
    with pytest.raises(Fail, match="unknown task type 'gone'"):
        Batch(payload, house.context, ExecutorRegistry({}))
