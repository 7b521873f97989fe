import asyncio
from collections.abc import Sequence

import pytest

from app.core.errors import StoreUnavailable
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
    with pytest.raises(StoreUnavailable, match="Too many"):
        await batcher(4)
    recorder.gate.set()
    assert await asyncio.gather(*calls) == [10, 20, 30]


async def test_closing_waits_for_everyone() -> None:
    recorder = Recorder()
    batcher = Batcher(recorder.run, largest=1)
    calls = [asyncio.create_task(batcher(number)) for number in range(4)]
    await asyncio.sleep(0)
    await batcher.close()
    assert all(call.done() for call in calls) or await asyncio.gather(*calls) == [0, 10, 20, 30]
    assert len(recorder.batches) == 4
