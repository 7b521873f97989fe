from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from app.core.attempt_log import CHUNK_LINES, AttemptLog, Chunk, LogLimits, Source

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WIDE = LogLimits(100, 2**20)


def said(log: AttemptLog, *texts: str) -> list[Chunk]:
    for text in texts:
        log.add(NOW, Source.STDOUT, text, None)
    return log.take()


def lines(*chunks: Chunk) -> list[dict[str, Any]]:
    return [line for chunk in chunks for line in orjson.loads(chunk.lines)]


def test_lines_are_numbered_through_all_that_is_taken() -> None:
    log = AttemptLog(7, 2, 1, WIDE)
    (first,) = said(log, "one", "two")
    (second,) = said(log, "three")
    assert (first.number, first.count, second.number, second.count) == (2, 2, 3, 1)
    assert [(line["number"], line["text"]) for line in lines(first, second)] == [(1, "one"), (2, "two"), (3, "three")]
    assert said(log) == []


def test_a_line_says_when_it_came_and_whence() -> None:
    log = AttemptLog(7, 2, 1, WIDE)
    log.add(NOW, Source.LOG, "paid", {"order": 3})
    expected = {"number": 1, "at": "2026-01-02T03:04:05Z", "source": "log", "text": "paid", "fields": {"order": 3}}
    assert lines(*log.take()) == [expected]


def test_what_must_not_be_stored_is_cut_out() -> None:
    log = AttemptLog(7, 2, 1, WIDE, lambda text: text.replace("secret", "[redacted]"))
    assert [line["text"] for line in lines(*said(log, "my secret"))] == ["my [redacted]"]


def test_of_a_flood_the_newest_are_kept_and_the_numbers_say_how_many_went() -> None:
    log = AttemptLog(7, 2, 1, LogLimits(100, 2**20))
    chunks = said(log, *map(str, range(1, 1001)))
    assert [line["number"] for line in lines(*chunks)] == list(range(901, 1001))
    assert {chunk.count for chunk in chunks} == {CHUNK_LINES}


@pytest.mark.parametrize("limits", [LogLimits(100, 2**20), LogLimits(10_000, 16 * 2**10)])
def test_older_chunks_go_when_newer_ones_need_their_room(limits: LogLimits) -> None:
    log = AttemptLog(7, 2, 1, limits)
    stored: list[Chunk] = []
    for round_ in range(20):
        for chunk in said(log, *(f"{round_}-{number}-{'x' * 100}" for number in range(30))):
            stored = [one for one in [*stored, chunk] if one.number >= chunk.keep_from]
            assert sum(one.count for one in stored) <= limits.lines
            assert sum(len(one.lines) for one in stored) <= limits.bytes
    assert stored[-1].number == 600
    kept = [line["number"] for line in lines(*stored)]
    assert kept == list(range(kept[0], 601))
    assert len(kept) >= 60


def test_a_line_that_is_longer_than_a_chunk_is_kept() -> None:
    (chunk,) = said(AttemptLog(7, 2, 1, LogLimits(10, 100)), "x" * 500)
    assert (chunk.count, chunk.keep_from) == (1, 1)
