import asyncio
from collections.abc import Sequence

import pytest

from app.core.errors import Overloaded, StoreDamaged, StoreUnavailable
from app.services.batcher import Batcher


class Recorder:
    """Runs batches when it is let, and remembers them."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()

    async def run(self, requests: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(requests))
        self.begun.set()
        await self.gate.wait()
        if any(request < 0 for request in requests):
            raise ValueError(f"negative in {list(requests)}")
        return [KeyError(request) if request == 13 else request * 10 for request in requests]


async def test_each_caller_gets_the_answer_to_its_own_request() -> None:
    recorder = Recorder()
    batcher = Batcher(recorder.run)
    assert await asyncio.gather(*(batcher(number) for number in range(12))) == [number * 10 for number in range(12)]


async def test_what_arrives_while_a_batch_runs_goes_into_the_next_one_together() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder.run)
    calls = [asyncio.create_task(batcher(1))]
    await recorder.begun.wait()
    calls += [asyncio.create_task(batcher(number)) for number in range(2, 8)]
    await asyncio.sleep(0)
    recorder.gate.set()
    await asyncio.gather(*calls)
    assert recorder.batches == [[1], [2, 3, 4, 5, 6, 7]]


async def test_a_batch_has_a_largest_size() -> None:
    recorder = Recorder()
    batcher = Batcher(recorder.run, largest=3)
    await asyncio.gather(*(batcher(number) for number in range(8)))
    assert max(len(batch) for batch in recorder.batches) == 3


async def test_an_answer_that_is_an_error_reaches_its_caller_alone() -> None:
    batcher = Batcher(Recorder().run)
    answers = await asyncio.gather(batcher(12), batcher(13), batcher(14), return_exceptions=True)
    assert answers[0] == 120
    assert isinstance(answers[1], KeyError)
    assert answers[2] == 140


async def test_one_bad_request_fails_one_caller() -> None:
    recorder = Recorder()
    batcher = Batcher(recorder.run)
    answers = await asyncio.gather(batcher(1), batcher(-2), batcher(3), return_exceptions=True)
    assert answers[0] == 10
    assert isinstance(answers[1], ValueError)
    assert answers[2] == 30
    assert recorder.batches[-3:] == [[1], [-2], [3]]


async def test_a_store_that_is_away_fails_the_whole_batch_at_once() -> None:
    calls = 0

    async def run(requests: Sequence[int]) -> list[int | Exception]:
        nonlocal calls
        calls += 1
        raise StoreUnavailable("away")

    batcher: Batcher[int, int] = Batcher(run)
    answers = await asyncio.gather(*(batcher(number) for number in range(5)), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["away"] * 5
    assert calls == 1


async def test_those_who_wait_for_the_next_batch_fail_with_the_one_that_found_the_store_away() -> None:
    """They have waited as long as the others; the next batch would make them wait for the same again."""
    recorder = Recorder()
    recorder.gate.clear()
    calls = 0

    async def run(requests: Sequence[int]) -> list[int | Exception]:
        nonlocal calls
        calls += 1
        answers = await recorder.run(requests)
        if calls == 1:
            raise StoreUnavailable("away")
        return answers

    batcher: Batcher[int, int] = Batcher(run)
    first = asyncio.create_task(batcher(1))
    await recorder.begun.wait()
    second = asyncio.create_task(batcher(2))
    await asyncio.sleep(0)
    recorder.gate.set()
    answers = await asyncio.gather(first, second, return_exceptions=True)
    assert [str(answer) for answer in answers] == ["away"] * 2
    assert await batcher(3) == 30


async def test_a_broken_row_fails_its_caller_and_a_store_that_goes_away_meanwhile_all_the_others() -> None:
    seen: list[list[int]] = []

    async def run(requests: Sequence[int]) -> list[int | Exception]:
        seen.append(list(requests))
        if 2 in requests:
            raise StoreDamaged("broken")
        if 3 in requests:
            raise StoreUnavailable("away")
        return [request * 10 for request in requests]

    batcher: Batcher[int, int] = Batcher(run)
    answers = await asyncio.gather(*(batcher(number) for number in range(1, 6)), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["10", "broken", "away", "away", "away"]
    assert seen == [[1, 2, 3, 4, 5], [1], [2], [3]]


async def test_a_caller_that_has_gone_is_not_served() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder.run)
    first = asyncio.create_task(batcher(1))
    await recorder.begun.wait()
    gone, stays = asyncio.create_task(batcher(2)), asyncio.create_task(batcher(3))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    recorder.gate.set()
    assert (await first, await stays) == (10, 30)
    assert recorder.batches == [[1], [3]]


async def test_too_many_waiting_are_refused_at_once() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder.run, most_waiting=2)
    calls = [asyncio.create_task(batcher(1))]
    await recorder.begun.wait()
    calls += [asyncio.create_task(batcher(number)) for number in (2, 3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="Too many") as refusal:
        await batcher(4)
    assert refusal.value.retry_after_seconds is None  # nothing was served yet
    recorder.gate.set()
    assert await asyncio.gather(*calls) == [10, 20, 30]


async def test_who_is_refused_is_told_when_there_should_be_room() -> None:
    """A thousand a second so far, so a hundred who wait are served in a tenth of a second."""
    recorder = Recorder()
    batcher = Batcher(recorder.run, most_waiting=100)
    await batcher(1)
    batcher._per_second = 1000.0
    recorder.gate.clear()
    recorder.begun.clear()
    calls = [asyncio.create_task(batcher(1))]
    await recorder.begun.wait()
    calls += [asyncio.create_task(batcher(number)) for number in range(100)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refusal:
        await batcher(4)
    assert refusal.value.retry_after_seconds == pytest.approx(0.1)
    recorder.gate.set()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_large_requests_fill_a_batch_and_the_room_there_is() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder.run, size=lambda number: number, fullest=10, most_size=30)
    calls = [asyncio.create_task(batcher(number)) for number in (12, 6, 4, 6)]
    await recorder.begun.wait()
    with pytest.raises(Overloaded):
        await batcher(15)
    recorder.gate.set()
    await asyncio.gather(*calls)
    assert recorder.batches == [[12], [6, 4], [6]]
    assert await batcher(15) == 150


async def test_closing_waits_for_everyone() -> None:
    recorder = Recorder()
    batcher = Batcher(recorder.run, largest=1)
    calls = [asyncio.create_task(batcher(number)) for number in range(4)]
    await asyncio.sleep(0)
    await batcher.close()
    assert all(call.done() for call in calls) or await asyncio.gather(*calls) == [0, 10, 20, 30]
    assert len(recorder.batches) == 4
