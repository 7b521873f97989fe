"""What is done about a service that does not answer, or says that it cannot now: ask again, later each time, until the time
for the call is over. Decides; the clients do the sending and the sleeping."""

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random
from typing import Any, TypeAlias

import httpx

from taskclient.errors import NoAnswer, Problem, UnexpectedAnswer, problem_for
from taskclient.steps import Answer, Request

LATER = frozenset({429, 502, 503, 504})
"""Answers that ask to try again: of the service itself, or of what stands before it. None of them has done anything, but
502 and 504, which do not know."""
UNKNOWING = frozenset({502, 504})
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
HOPELESS = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
CONNECT_SECONDS = 5.0
SHOWN = 200


@dataclass(frozen=True)
class Patience:
    """`timeout` is the time a call has, all tries together, `retries` how many tries may follow the first. The wait before
    each is drawn from 0 to `base_seconds`, doubled with each, up to `ceiling_seconds`; or longer where the service says.
    """

    timeout: float = 30.0
    retries: int = 8
    base_seconds: float = 0.1
    ceiling_seconds: float = 5.0

    def delay(self, tries: int, asked: float | None, random: Random) -> float:
        """How long to wait after `tries` tries; `asked` is the service's Retry-After."""
        drawn = random.uniform(0, min(self.ceiling_seconds, self.base_seconds * 2 ** (tries - 1)))
        return drawn if asked is None else asked + drawn


@dataclass(frozen=True, slots=True)
class Send:
    """Send the request, with at most so many seconds between two signs of life, and hand back the response at its head.
    Raises httpx.TransportError."""

    request: Request
    timeout: httpx.Timeout


@dataclass(frozen=True, slots=True)
class Read:
    """Hand back the next chunk of the last response, None at its end. Raises httpx.TransportError."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait."""

    seconds: float


Tries: TypeAlias = Generator[Send | Read | Sleep, Any, Answer]


def tried(request: Request, patience: Patience, clock: Callable[[], float], random: Random) -> Tries:
    """Send `request` until it is answered. Raises Problem, NoAnswer or UnexpectedAnswer."""
    if request.pause_seconds:
        yield Sleep(request.pause_seconds)
    began = clock()
    # A large file may take long; then the number of tries is the only limit.
    deadline = math.inf if request.form else began + patience.timeout + request.wait_seconds
    tries, unsure = 0, False
    while True:
        tries += 1
        asked = None
        try:
            answer = yield from _once(request, patience, began, deadline, clock, unsure)
            if answer.status < 400 or answer.status in request.accepted:
                return _ours(request, answer)
            error: Problem | NoAnswer = problem_of(answer)
            again = answer.status in LATER
            if answer.status in UNKNOWING:
                unsure, again = True, request.repeatable
            asked = _retry_after(answer.response)
        except httpx.TransportError as failure:
            sent = not isinstance(failure, NEVER_SENT)
            unsure = unsure or sent
            again = (request.repeatable or not sent) and not _hopeless(failure)
            error = no_answer(failure, unsure=unsure)
        delay = patience.delay(tries, asked, random)
        if not again or tries > patience.retries or clock() + delay >= deadline:
            raise error
        yield Sleep(delay)


def _once(
    request: Request, patience: Patience, began: float, deadline: float, clock: Callable[[], float], unsure: bool
) -> Generator[Send | Read, Any, Answer]:
    """One try, its whole body read unless it is to be streamed."""
    left = max(0.001, deadline - clock())
    # What streams may take long as a whole; its time is that between two signs of life.
    silence = patience.timeout if request.streamed else min(left, patience.timeout + request.wait_seconds)
    response: httpx.Response = yield Send(request, httpx.Timeout(silence, connect=min(left, CONNECT_SECONDS)))
    if request.streamed and response.is_success:
        return Answer(response, b"", began, clock(), unsure)
    chunks: list[bytes] = []
    while (chunk := (yield Read())) is not None:
        chunks.append(chunk)
        if clock() > deadline:
            raise httpx.ReadTimeout("the answer did not end in time", request=response.request)
    return Answer(response, b"".join(chunks), began, clock(), unsure)


def _ours(request: Request, answer: Answer) -> Answer:
    """The answer, if it can be one of this service. Raises UnexpectedAnswer for a redirect, or for somebody's page."""
    says_json = answer.response.headers.get("content-type", "").startswith("application/json")
    if answer.response.is_success and (says_json or request.streamed or answer.status == 204):
        return answer
    if answer.status in request.accepted:
        return answer
    raise _unexpected(answer)


def problem_of(answer: Answer) -> Problem:
    """The error that a refusal stands for. Raises UnexpectedAnswer where it is none of this service."""
    response = answer.response
    media_type = response.headers.get("content-type", "").split(";")[0].strip()
    if media_type == "application/problem+json":
        document = httpx.Response(answer.status, content=answer.content).json()
        return problem_for(answer.status)(document, answer.status, _retry_after(response))
    if answer.status in LATER:  # a proxy speaks, while what is behind it cannot
        document = {"detail": f"{response.url.host} answered {answer.status} {response.reason_phrase}."}
        return problem_for(answer.status)(document, answer.status, _retry_after(response))
    raise _unexpected(answer)


def _unexpected(answer: Answer) -> UnexpectedAnswer:
    """The error for an answer that this service does not give."""
    response = answer.response
    said = " ".join(answer.content[:SHOWN].decode("utf-8", "replace").split())
    if response.is_redirect:
        said = f"it leads to {response.headers.get('location')}"
    return UnexpectedAnswer(
        f"{response.request.method} {response.url} answered {answer.status} {response.reason_phrase}, which is not the"
        f" task service's way: {said or 'nothing'}"
    )


def no_answer(failure: httpx.TransportError, *, unsure: bool) -> NoAnswer:
    """The error for a service that did not answer; `unsure`: it may have got the request."""
    url = failure.request.url
    where = f"{url.scheme}://{url.netloc.decode()}"
    said = str(failure) or (
        "it took too long" if isinstance(failure, httpx.TimeoutException) else type(failure).__name__
    )
    doubt = " It may have been done all the same." if unsure and failure.request.method != "GET" else ""
    # "Server disconnected without sending a response." brings a full stop of its own.
    return NoAnswer(f"No answer from {where}: {said.rstrip('.')}.{doubt}", unsure=unsure)


def _hopeless(failure: httpx.TransportError) -> bool:
    """True where trying again gives the same: a wrong address, a certificate that is not trusted."""
    return isinstance(failure, HOPELESS) or "CERTIFICATE_VERIFY_FAILED" in str(failure)


def _retry_after(response: httpx.Response) -> float | None:
    """The header in seconds, whichever of its two forms it has; None where it has neither."""
    said = response.headers.get("retry-after", "").strip()
    if said.isdigit():
        return float(said[:9])
    try:
        moment = parsedate_to_datetime(said)
    except ValueError:
        return None
    now = _date(response) or datetime.now(UTC)
    seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _date(response: httpx.Response) -> datetime | None:
    """The moment of the answer by the clock of who sent it: a header's moment is by that clock too."""
    try:
        moment = parsedate_to_datetime(response.headers.get("date", ""))
    except ValueError:
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC)
