"""Operations step by step: what they ask for, and what they make of the answers. Nothing is sent."""

import hashlib
import json
from collections.abc import Callable, Generator, Iterator
from typing import Any

import httpx
import pytest

from taskclient import Client, StillRunning, UnexpectedAnswer, operations
from taskclient.operations import LET_GO_SECONDS, MOST_IN_VAIN, POLL_SECONDS
from taskclient.sse import EventParser
from taskclient.steps import Answer, Emit, Receive, Request

TASK = {
    **dict.fromkeys(("progress", "error", "failure_reason", "scheduled_at", "started_at", "finished_at")),
    **dict.fromkeys(("expires_at", "cancel_requested_at", "worker_id", "retry", "retry_for_seconds")),
    **dict.fromkeys(("resolved_at", "resolution", "unique_key", "parent_id", "metadata")),
    "id": 1,
    "task_type": "echo",
    "queue": "q",
    "priority": 0,
    "attempts": 0,
    "max_attempts": 3,
    "timeout_seconds": 60.0,
    "created_at": "2026-11-25T10:00:00Z",
    "tags": [],
}


def task(status: str, **changes: Any) -> str:
    return json.dumps({**TASK, "status": status, **changes})


def answer(
    content: str | bytes = b"", status: int = 200, *, began: float = 0, ended: float = 0, **headers: str
) -> Answer:
    body = content.encode() if isinstance(content, str) else content
    response = httpx.Response(status, headers=headers, request=httpx.Request("GET", "http://test/x"))
    return Answer(response, body, began, ended)


class Play:
    """Answers the steps of an operation, one after the other. `requests` are those it made, `given` what it emitted."""

    def __init__(self, steps: Generator[Any, Any, Any], *replies: Any) -> None:
        self.requests: list[Request] = []
        self.given: list[Any] = []
        self.returned: Any = None
        self._replies = iter(replies)
        reply: Any = None
        try:
            while True:
                step = steps.throw(reply) if isinstance(reply, Exception) else steps.send(reply)
                match step:
                    case Request():
                        self.requests.append(step)
                        reply = next(self._replies)
                    case Receive():
                        reply = next(self._replies)
                    case Emit(item):
                        self.given.append(item)
                        reply = None
        except StopIteration as end:
            self.returned = end.value


@pytest.mark.parametrize(
    ("operation", "repeatable"),
    [
        (lambda: operations.submit("echo"), True),
        (lambda: operations.submit_many([]), False),
        (lambda: operations.get(1), True),
        (lambda: operations.edit(1, priority=1), True),
        (lambda: operations.cancel(1), True),
        (lambda: operations.retry(1), False),
        (lambda: operations.delete(1), True),
        (lambda: operations.requeue(all=True), False),
        (lambda: operations.resolve(all=True), False),
        (lambda: operations.purge(all=True), False),
        (lambda: operations.trip("a", "b"), True),
        (lambda: operations.reset("a"), True),
        (lambda: operations.upload(b"x"), True),
        (lambda: operations.delete_file("f"), True),
    ],
)
def test_only_what_may_be_done_twice_is_repeated_blindly(
    operation: Callable[[], Generator[Any, Any, Any]], repeatable: bool
) -> None:
    steps = operation()
    assert next(steps).repeatable is repeatable
    steps.close()


def test_each_submission_has_a_key_of_its_own() -> None:
    keys = {next(operations.submit("echo")).headers["Idempotency-Key"] for _ in range(3)}
    assert len(keys) == 3
    assert next(operations.submit("echo", idempotency_key="mine")).headers["Idempotency-Key"] == "mine"


def test_a_wait_is_cut_into_polls() -> None:
    play = Play(
        operations.wait(1, 60),
        answer(task("pending"), began=0, ended=25),
        answer(task("running"), began=25, ended=50),
        answer(task("completed"), began=50, ended=55),
    )
    assert [request.params["wait"] for request in play.requests] == [POLL_SECONDS, POLL_SECONDS, 10]
    assert [request.pause_seconds for request in play.requests] == [0, 0, 0]
    assert play.returned.status == "completed"


def test_a_wait_that_is_let_go_early_does_not_run_in_circles() -> None:
    replies = [answer(task("pending"), began=number / 100, ended=number / 100) for number in range(3)]
    play = Play(operations.wait(1), *replies, answer(task("failed"), began=1, ended=1))
    assert [request.pause_seconds for request in play.requests] == [0, *[LET_GO_SECONDS] * 3]


def test_a_wait_ends_when_its_time_is_over_whatever_the_service_does() -> None:
    with pytest.raises(StillRunning, match="still pending after 5 s"):
        Play(operations.wait(1, 5), answer(task("pending"), ended=2), answer(task("pending"), began=2, ended=6))


def events(*texts: str) -> list[bytes]:
    return [f"event: task\r\ndata: {text}\r\n\r\n".encode() for text in texts]


def test_a_stream_of_events_that_breaks_off_is_taken_up_without_saying_anything_twice() -> None:
    pending, running, completed = (task(status) for status in ("pending", "running", "completed"))
    play = Play(
        operations.events(1),
        *(answer(), *events(pending, running), httpx.ReadError("reset")),
        *(answer(), *events(running), None),  # the service stops
        *(answer(), *events(running, completed)),
    )
    assert [one.status for one in play.given] == ["pending", "running", "completed"]
    assert [request.pause_seconds for request in play.requests] == [0, LET_GO_SECONDS, LET_GO_SECONDS]


def test_events_end_with_a_task_that_is_deleted() -> None:
    play = Play(operations.events(1), answer(), *events(task("pending")), b"event: deleted\ndata: {}\n\n")
    assert len(play.given) == 1


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_put_together_however_they_are_cut(size: int) -> None:
    stream = 'event: task\r\ndata: {"a":\r\ndata: "ü"}\r\nid: 1\r\n\r\n: ping\r\n\r\ndata:bare\n\n'.encode()
    parser = EventParser()
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    found = [event for piece in pieces for event in parser.feed(piece)]
    assert found == [("task", '{"a":\n"ü"}'), ("message", "bare")]


TAG = f'"{hashlib.sha256(b"abcdef").hexdigest()}"'


def test_a_file_is_taken_up_where_it_broke_off() -> None:
    play = Play(
        operations.stream_file("f"),
        *(answer(etag=TAG), b"abc", httpx.ReadError("reset")),
        *(answer(status=206, etag=TAG), b"def", None),
    )
    assert play.given == [b"abc", b"def"]
    assert play.requests[1].headers == {"Range": "bytes=3-", "If-Range": TAG}


def test_a_file_that_became_another_meanwhile_is_not_put_together() -> None:
    with pytest.raises(UnexpectedAnswer, match="could not be taken up again after 3 bytes"):
        Play(operations.stream_file("f"), answer(etag=TAG), b"abc", httpx.ReadError("reset"), answer(etag='"other"'))


def test_a_file_that_arrives_with_other_bytes_is_refused() -> None:
    with pytest.raises(UnexpectedAnswer, match="arrived with other bytes"):
        Play(operations.stream_file("f"), answer(etag=TAG), b"abcdeX", None)


def test_a_file_that_never_gets_further_is_given_up() -> None:
    fruitless = [reply for _ in range(MOST_IN_VAIN + 1) for reply in (answer(etag=TAG), httpx.ReadError("reset"))]
    with pytest.raises(httpx.ReadError):
        Play(operations.stream_file("f"), *fruitless)


def test_a_blocking_loop_that_is_left_early_gives_its_connection_back() -> None:
    closed: list[bool] = []

    class Body(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            while True:
                yield b"more"

        def close(self) -> None:
            closed.append(True)

    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Body()))
    with Client("http://test", transport=transport) as client:
        for _ in client.files.stream("0" * 32):
            break
        assert closed
