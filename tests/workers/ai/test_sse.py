import pytest

from app.workers.ai.sse import Event, EventBuffer, EventTooLarge

STREAM = (
    "\ufeffdata: one\r\n"
    ": a comment\r\n\r\n"
    "event: error\ndata: Grüße 🙂\u2028\x85 end\n\n"
    "data\ndata:two\ndata:  lines\nid: 7\nretry: 5\nunknown\n\n"
    "event: nothing\n\n"
    "data: three\r\r"
    "error: old llama.cpp\n\n"
    "data: [DONE]"
).encode() + b"\xff\n"
EVENTS = [
    Event("message", "one"),
    Event("error", "Grüße 🙂\u2028\x85 end"),
    Event("message", "\ntwo\n lines"),
    Event("message", "three"),
    Event("error", "old llama.cpp"),
    Event("message", "[DONE]\ufffd"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(STREAM)])
def test_events_are_the_same_however_the_stream_was_cut(size: int) -> None:
    buffer = EventBuffer(1000)
    events = []
    for start in range(0, len(STREAM), size):
        events += buffer.feed(STREAM[start : start + size])
    assert events == EVENTS[:-1]
    assert events + buffer.finish() == EVENTS


def test_an_event_is_there_as_soon_as_its_blank_line_is() -> None:
    buffer = EventBuffer(1000)
    assert buffer.feed(b"data: a\r\n\r") == []
    assert buffer.feed(b"\ndata: b\n\n") == [Event("message", "a"), Event("message", "b")]
    assert buffer.finish() == []


@pytest.mark.parametrize("piece", [b"data: 12", b"data: 12\n"])
def test_an_event_without_end_is_not_gathered_for_ever(piece: bytes) -> None:
    buffer = EventBuffer(len(piece) * 3)
    for _ in range(3):
        assert buffer.feed(piece) == []
    with pytest.raises(EventTooLarge, match=f"{len(piece) * 3} bytes"):
        assert [buffer.feed(piece) for _ in range(9)] == []


def test_many_small_events_are_no_large_one() -> None:
    buffer = EventBuffer(20)
    assert sum(len(buffer.feed(b"data: 12\n\n")) for _ in range(100)) == 100
