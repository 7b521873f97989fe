"""What is done about a service that does not answer, step by step, on a clock that only the steps move."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx
import pytest

from taskclient.errors import Conflict, InvalidRequest, NoAnswer, NotAllowed, NotFound, Unavailable, UnexpectedAnswer
from taskclient.patience import Patience, Read, Send, Sleep, tried
from taskclient.steps import Answer, Request

GET = Request("GET", "/tasks/1")
ONCE = Request("POST", "/tasks/1/retry", repeatable=False)
REQUEST = httpx.Request("GET", "http://test/tasks/1")

Reply = httpx.Response | httpx.TransportError


class Longest(Random):
    """Draws the longest wait there is."""

    def uniform(self, a: float, b: float) -> float:
        return b


@dataclass
class Scene:
    """Plays a service. `slept` are the waits between tries; each reply takes `reply_seconds`."""

    replies: Sequence[Reply]
    reply_seconds: float = 0.0
    now: float = 100.0
    slept: list[float] = field(default_factory=list)
    sent: list[Send] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def play(self, request: Request, patience: Patience = Patience()) -> Answer:  # noqa: B008 a frozen value
        steps = tried(request, patience, self.clock, Longest())
        replies = iter(self.replies)
        body: list[bytes] = []
        reply: Any = None
        while True:
            try:
                step = steps.throw(reply) if isinstance(reply, Exception) else steps.send(reply)
            except StopIteration as end:
                answer: Answer = end.value
                return answer
            match step:
                case Send():
                    self.sent.append(step)
                    self.now += self.reply_seconds
                    reply = next(replies)
                    reply.request = REQUEST
                    body = [reply.content] if isinstance(reply, httpx.Response) and reply.content else []
                case Read():
                    reply = body.pop() if body else None
                case Sleep(seconds):
                    self.slept.append(seconds)
                    self.now += seconds
                    reply = None


def ok() -> httpx.Response:
    return httpx.Response(200, json={"id": 1})


def problem(status: int, headers: dict[str, str] | None = None, **document: Any) -> httpx.Response:
    kind = {"content-type": "application/problem+json"}
    body = {"type": "urn:task-service:problem:x", "status": status, "detail": "No.", **document}
    return httpx.Response(status, headers=kind | (headers or {}), json=body)


def page(status: int, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, headers={"content-type": "text/html"} | (headers or {}), text="<h1>Hello</h1>")


def test_an_answer_is_an_answer() -> None:
    scene = Scene([ok()])
    assert scene.play(GET).content == b'{"id":1}'
    assert scene.slept == []


@pytest.mark.parametrize(
    "trouble",
    [
        lambda: httpx.ConnectError("refused"),
        lambda: httpx.ReadError("reset"),
        lambda: httpx.RemoteProtocolError("Server disconnected"),
        lambda: httpx.ReadTimeout("slow"),
        lambda: problem(503),
        lambda: problem(429),
        lambda: page(502),
        lambda: page(503),
        lambda: page(504),
    ],
)
def test_what_passes_is_tried_again(trouble: Callable[[], Reply]) -> None:
    scene = Scene([trouble(), trouble(), ok()])
    assert scene.play(GET).status == 200
    assert scene.slept == [0.1, 0.2]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (lambda: problem(400), InvalidRequest),
        (lambda: problem(401), NotAllowed),
        (lambda: problem(403), NotAllowed),
        (lambda: problem(404), NotFound),
        (lambda: problem(409), Conflict),
        (lambda: problem(413), InvalidRequest),
        (lambda: problem(422), InvalidRequest),
        (lambda: problem(500), Unavailable),
        (lambda: page(404), UnexpectedAnswer),
        (lambda: page(200), UnexpectedAnswer),
        (lambda: httpx.Response(301, headers={"location": "https://test/"}), UnexpectedAnswer),
        (lambda: httpx.UnsupportedProtocol("gopher"), NoAnswer),
        (lambda: httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"), NoAnswer),
    ],
)
def test_what_stays_is_not_tried_again(reply: Callable[[], Reply], error: type[Exception]) -> None:
    scene = Scene([reply()])
    with pytest.raises(error):
        scene.play(GET)
    assert len(scene.sent) == 1


@pytest.mark.parametrize(
    ("trouble", "tries"),
    [
        (lambda: httpx.ConnectError("refused"), 2),
        (lambda: httpx.ConnectTimeout("slow"), 2),
        (lambda: problem(503), 2),
        (lambda: problem(429), 2),
        (lambda: page(503), 2),
        # These may have arrived.
        (lambda: httpx.ReadError("reset"), 1),
        (lambda: httpx.ReadTimeout("slow"), 1),
        (lambda: httpx.RemoteProtocolError("Server disconnected"), 1),
        (lambda: page(502), 1),
        (lambda: page(504), 1),
    ],
)
def test_what_must_not_be_done_twice_is_sent_again_only_if_it_cannot_have_arrived(
    trouble: Callable[[], Reply], tries: int
) -> None:
    scene = Scene([trouble(), ok()])
    if tries == 2:
        assert scene.play(ONCE).status == 200
    else:
        with pytest.raises((NoAnswer, Unavailable)):
            scene.play(ONCE)
    assert len(scene.sent) == tries


def test_an_error_says_whether_the_request_may_have_been_carried_out() -> None:
    with pytest.raises(NoAnswer) as refused:
        Scene([httpx.ConnectError("refused")]).play(ONCE, Patience(retries=0))
    with pytest.raises(NoAnswer) as lost:
        Scene([httpx.ReadError("reset")]).play(ONCE)
    assert (refused.value.unsure, lost.value.unsure) == (False, True)
    # A try that may have arrived is not forgotten because a later one did not.
    with pytest.raises(NoAnswer) as both:
        Scene([httpx.ReadError("reset"), httpx.ConnectError("refused")]).play(GET, Patience(retries=1))
    assert both.value.unsure


def test_an_answer_says_whether_an_earlier_try_may_have_arrived() -> None:
    assert not Scene([httpx.ConnectError("refused"), ok()]).play(GET).unsure
    assert Scene([httpx.ReadError("reset"), ok()]).play(GET).unsure
    assert Scene([page(504), ok()]).play(GET).unsure


def test_the_waits_grow_to_a_ceiling_and_end_with_the_retries() -> None:
    scene = Scene([httpx.ConnectError("refused")] * 9)
    with pytest.raises(NoAnswer, match=r"No answer from http://test: refused\."):
        scene.play(GET, Patience(timeout=1000, retries=8))
    assert scene.slept == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_nothing_is_tried_that_would_begin_after_the_deadline() -> None:
    scene = Scene([httpx.ConnectError("refused")] * 9, reply_seconds=1.0)
    with pytest.raises(NoAnswer):
        scene.play(GET, Patience(timeout=3.5))
    assert scene.slept == [0.1, 0.2]
    assert scene.now == pytest.approx(103.3)


def test_each_try_has_the_time_that_is_left() -> None:
    scene = Scene([httpx.ReadTimeout("slow"), ok()], reply_seconds=4.0)
    scene.play(GET, Patience(timeout=10))
    first, second = (send.timeout for send in scene.sent)
    assert (first.read, first.connect) == (10, 5)
    assert second.read == pytest.approx(10 - 4 - 0.1)


def test_a_long_poll_has_its_wait_beside_the_time_for_a_call() -> None:
    scene = Scene([ok()])
    scene.play(Request("GET", "/tasks/1", wait_seconds=25), Patience(timeout=10))
    assert scene.sent[0].timeout.read == 35


@pytest.mark.parametrize(
    ("headers", "waited"),
    [
        ({"retry-after": "2"}, 2.1),
        ({"retry-after": "0"}, 0.1),
        ({"retry-after": "Wed, 25 Nov 2026 10:00:05 GMT", "date": "Wed, 25 Nov 2026 10:00:02 GMT"}, 3.1),
        ({"retry-after": "Wed, 25 Nov 2026 10:00:00 GMT", "date": "Wed, 25 Nov 2026 10:00:02 GMT"}, 0.1),
        ({"retry-after": "soon"}, 0.1),
        ({}, 0.1),
    ],
)
def test_a_service_that_says_when_is_asked_then(headers: dict[str, str], waited: float) -> None:
    scene = Scene([problem(503, headers), ok()])
    scene.play(GET)
    assert scene.slept == [pytest.approx(waited)]


def test_a_service_that_asks_for_more_time_than_there_is_is_not_waited_for() -> None:
    scene = Scene([problem(503, {"retry-after": "60"})])
    with pytest.raises(Unavailable) as raised:
        scene.play(GET, Patience(timeout=30))
    assert raised.value.retry_after == 60
    assert scene.slept == []


def test_a_body_that_does_not_end_is_cut_off_at_the_deadline() -> None:
    """A trickle of bytes keeps every time-out of a socket from striking."""
    scene = Scene([])
    steps = tried(GET, Patience(timeout=10, retries=0), scene.clock, Longest())
    assert isinstance(next(steps), Send)
    response = httpx.Response(200, request=REQUEST, headers={"content-type": "application/json"}, content=b"")
    assert isinstance(steps.send(response), Read)
    with pytest.raises(NoAnswer, match="did not end in time"):  # noqa: PT012 the trickle
        for _ in range(20):
            scene.now += 1
            steps.send(b" ")


def test_a_problem_carries_its_document() -> None:
    fault = {"location": ["body", "payload"], "message": "Field required", "type": "missing"}
    with pytest.raises(InvalidRequest) as raised:
        Scene([problem(422, type="urn:task-service:problem:payload-invalid", errors=[fault])]).play(GET)
    error = raised.value
    assert (error.status, error.type, error.errors, str(error)) == (422, "payload-invalid", [fault], "No.")
    assert error.document["status"] == 422


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (lambda: page(200), "answered 200 OK, which is not the task service's way: <h1>Hello</h1>"),
        (lambda: httpx.Response(308, headers={"location": "https://test/"}), "it leads to https://test/"),
        (lambda: httpx.Response(418), "nothing"),
    ],
)
def test_a_stranger_is_described(reply: Callable[[], Reply], says: str) -> None:
    with pytest.raises(UnexpectedAnswer, match=r"^GET http://test/tasks/1 answered") as raised:
        Scene([reply()]).play(GET)
    assert says in str(raised.value)
