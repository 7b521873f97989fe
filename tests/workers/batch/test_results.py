import asyncio
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.lifecycle import Cancelled, Completed, Errored, Lost, Outcome, Snoozed, TimedOut
from app.core.task import JsonText
from app.services.executors import Context, RecordedReports, RunnerSetup
from app.workers.batch import checkpoints as module
from app.workers.batch.checkpoints import Checkpoints
from app.workers.batch.results import Results


def outcome(index: int, size: int = 0) -> Outcome:
    """Every third fails."""
    return Errored("ValueError", f"{index}") if index % 3 == 2 else Completed(JsonText(json.dumps("é" * size or index)))


def lines(results: Results) -> list[dict[str, Any]]:
    with results.in_order() as stream:
        return [json.loads(line) for line in stream]


@pytest.mark.parametrize(
    ("ending", "error"),
    [
        (Errored("KeyError", "'a'", "trace"), {"type": "KeyError", "message": "'a'"}),
        (TimedOut(0.5), {"type": "TimedOut", "message": "ran longer than 0.5 seconds"}),
        (Lost("it was killed"), {"type": "Lost", "message": "it was killed"}),
        (Cancelled("no"), {"type": "Cancel", "message": "no"}),
        (Snoozed(5), {"type": "Snooze", "message": "an item of a batch cannot wait; it runs now or fails"}),
    ],
)
def test_an_item_that_did_not_complete_says_why(ending: Outcome, error: dict[str, str]) -> None:
    results = Results(1)
    results.add(0, ending)
    assert results.items() == [{"index": 0, "status": "failed", "error": error}]
    results.close()


def test_integers_of_any_size_come_out_as_they_went_in() -> None:
    results = Results(1)
    results.add(0, Completed(JsonText(str(10**30))))
    assert results.items()[0]["result"] == 10**30
    results.close()


def test_the_first_errors_are_those_of_the_first_items() -> None:
    results = Results(100)
    for index in reversed(range(100)):
        results.add(index, Errored("ValueError", str(index)))
    assert [index for index, _ in results.first_errors] == list(range(10))
    assert results.first_errors[3] == (3, {"type": "ValueError", "message": "3"})
    results.close()


def test_a_second_outcome_of_an_item_changes_nothing() -> None:
    results = Results(2)
    results.add(1, Completed(JsonText("1")))
    results.add(1, Errored("ValueError", "late"))
    results.restore([b'{"index":1,"status":"completed","result":2}\n'])
    assert (results.completed, results.failed) == (1, 0)
    assert lines(results) == [{"index": 1, "status": "completed", "result": 1}]
    results.close()


def test_the_spool_is_beside_the_files_and_has_no_name(tmp_path: Path) -> None:
    results = Results(1, tmp_path)
    results.add(0, Completed(JsonText("1")))
    assert list(tmp_path.iterdir()) == []
    results.close()
    Results(1, tmp_path / "missing").close()


@st.composite
def attempts(draw: st.DrawFn) -> tuple[int, list[list[int]], list[set[int]], int, int]:
    """How many items, the order in which they would end in each attempt, after how many ends checkpoints are stored,
    how large results are, and what is stored inline."""
    total = draw(st.integers(1, 30))
    orders = draw(st.lists(st.permutations(range(total)), min_size=1, max_size=4))
    stores = [draw(st.sets(st.integers(1, total))) for _ in orders]
    return total, orders, stores, draw(st.sampled_from([0, 10, 400])), draw(st.sampled_from([0, 200, 10**6]))


@settings(max_examples=150, deadline=None)
@given(attempts(), st.data())
def test_whatever_the_order_and_wherever_it_dies_each_item_comes_out_once_and_in_order(
    plan: tuple[int, list[list[int]], list[set[int]], int, int], data: st.DataObject
) -> None:
    """And what was stored is never run again."""
    total, orders, stores, size, inline = plan
    stored: set[int] = set()
    runs: Counter[int] = Counter()
    reports = RecordedReports()

    async def attempt(order: list[int], store_after: set[int], dies_after: int | None) -> Results:
        results = Results(total)
        setup = RunnerSetup(max_result_bytes=inline)
        context = Context(checkpoints=reports.checkpoints, setup=setup, reports=reports)
        checkpoints = Checkpoints(context, results)
        assert checkpoints.restore() == len(stored)
        assert {index for index in range(total) if results.has(index)} == stored
        for count, index in enumerate((index for index in order if not results.has(index)), start=1):
            if dies_after is not None and count > dies_after:
                break
            assert index not in stored
            runs[index] += 1
            results.add(index, outcome(index, size))
            if count in store_after:
                await checkpoints.store()
                stored.update(index for index in range(total) if results.has(index))
        return results

    for order, store_after in zip(orders[:-1], stores[:-1], strict=True):
        dies_after = data.draw(st.integers(0, total))
        asyncio.run(attempt(order, store_after, dies_after)).close()
    before = Counter(runs)
    last = asyncio.run(attempt(orders[-1], stores[-1], None))
    with tempfile.TemporaryFile() as expected:
        for index in range(total):
            one = Results(total)
            one.add(index, outcome(index, size))
            with one.in_order() as line:
                expected.write(line.read())
            one.close()
        expected.seek(0)
        with last.in_order() as stream:
            assert stream.read() == expected.read()
    assert (last.total, last.completed, last.failed) == (total, total - total // 3, total // 3)
    assert all(runs[index] >= 1 for index in range(total))
    assert all(runs[index] <= before[index] + 1 for index in range(total))
    last.close()


@pytest.fixture
def results() -> Any:
    results = Results(2000)
    yield results
    results.close()


async def test_little_is_stored_in_the_checkpoint_and_much_in_a_temporary_file(results: Results) -> None:
    reports = RecordedReports()
    checkpoints = Checkpoints(Context(reports=reports), results)
    results.add(0, Completed(JsonText("1")))
    await checkpoints.store()
    results.add(1, Completed(JsonText(json.dumps("x" * 20_000))))
    await checkpoints.store()
    assert reports.checkpoints[0] == {"results": '{"index":0,"status":"completed","result":1}\n'}
    assert reports.checkpoints[1] == {"results_file_id": reports.saved[0].id}
    assert (len(reports.saved), reports.saved[0].name) == (1, "results-part.jsonl")


async def test_the_database_does_not_grow_with_the_batch(results: Results) -> None:
    reports = RecordedReports()
    checkpoints = Checkpoints(Context(reports=reports), results)
    for index in range(200):
        results.add(index, Completed(JsonText(json.dumps("x" * 10_000))))
        await checkpoints.store()
    assert sum(len(json.dumps(one)) for one in reports.checkpoints) < 1.2 * module.INLINE_TOTAL_BYTES
    again = Results(2000)
    Checkpoints(Context(checkpoints=reports.checkpoints, reports=reports), again).restore()
    assert again.completed == 200
    again.close()


async def test_items_whose_stored_results_have_gone_run_again(results: Results) -> None:
    stored = [{"results_file_id": "0" * 32}, {"results": '{"index":1,"status":"failed","error":{"type":"a"}}\n'}]
    checkpoints = Checkpoints(Context(checkpoints=stored, reports=RecordedReports()), results)
    assert checkpoints.restore() == 1
    assert (results.has(0), results.first_errors) == (False, [(1, {"type": "a"})])


def test_a_checkpoint_is_due_after_a_time_a_number_or_an_amount(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    checkpoints = Checkpoints(Context(reports=RecordedReports()), results)
    now += 10
    assert not checkpoints.due()  # nothing to store
    now = 1000.9
    results.add(0, Completed(JsonText("1")))
    assert not checkpoints.due()
    now = 1001.0
    assert checkpoints.due()
    asyncio.run(checkpoints.store())
    assert not checkpoints.due()
    for index in range(1, 501):
        results.add(index, Completed(JsonText("1")))
    assert checkpoints.due()
    asyncio.run(checkpoints.store())
    results.add(501, Completed(JsonText(json.dumps("x" * module.MOST_BYTES))))
    assert checkpoints.due()


@pytest.mark.parametrize(("ran", "wait"), [(50, 1.0), (500, 5.0), (100_000, 10.0)])
def test_a_long_batch_stores_less_often(
    results: Results, monkeypatch: pytest.MonkeyPatch, ran: float, wait: float
) -> None:
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    checkpoints = Checkpoints(Context(reports=RecordedReports()), results)
    now = ran
    results.add(0, Completed(JsonText("1")))
    asyncio.run(checkpoints.store())
    results.add(1, Completed(JsonText("1")))
    now = ran + 0.95 * wait
    assert not checkpoints.due()
    now = ran + 1.02 * wait
    assert checkpoints.due()
