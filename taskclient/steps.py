"""What an operation is: a generator that yields what it needs (a request sent, a chunk read) and returns what came of it.

So each operation is written once, without I/O, and the two clients only differ in how they do what is asked of them. It is
the shape of httpx's own `Auth.auth_flow`.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Generic, TypeAlias, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from taskclient.errors import UnexpectedAnswer

T = TypeVar("T")
Item = TypeVar("Item")
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Form:
    """A file to be sent as a multipart form."""

    name: str
    stream: IO[bytes]
    content_type: str


@dataclass(frozen=True, slots=True)
class Request:
    """Send this and hand back the answer, an error raised. `repeatable`: sending it twice does what sending it once does,
    so it may be sent again when nobody knows whether it arrived.

    `wait_seconds` is what the service may take on purpose; `pause_seconds` comes before the request. Statuses of `accepted`
    are no errors. `streamed`: the answer is handed over at its head.
    """

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    content: bytes | None = None
    form: Form | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    wait_seconds: float = 0.0
    pause_seconds: float = 0.0
    accepted: frozenset[int] = frozenset()
    streamed: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `content` is empty where the request was streamed. `unsure`: the request was sent before, and nobody
    knows whether that one arrived. The moments are of the monotonic clock."""

    response: httpx.Response
    content: bytes
    began: float
    ended: float
    unsure: bool = False

    @property
    def status(self) -> int:
        return self.response.status_code

    def read(self, model: type[Model]) -> Model:
        """The body as `model`. Raises UnexpectedAnswer."""
        try:
            return model.model_validate_json(self.content)
        except ValidationError as error:
            where = f"{self.response.request.method} {self.response.url}"
            fault = error.errors()[0]
            place = ".".join(map(str, fault["loc"])) or "body"
            raise UnexpectedAnswer(
                f"{where} gave what no task service of this version gives: {place}: {fault['msg']}. Is the client as new as"
                " the service?"
            ) from error


@dataclass(frozen=True, slots=True)
class Receive:
    """Hand back the next chunk of the last answer, which was streamed; None at its end. Raises httpx.TransportError."""


@dataclass(frozen=True, slots=True)
class Work:
    """Call this, which may block, and hand back what it returns."""

    function: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Emit(Generic[Item]):
    """Give this to whoever iterates."""

    item: Item


Steps: TypeAlias = Generator[Request | Receive | Work, Any, T]
"""An operation that returns one thing."""

Stream: TypeAlias = Generator[Request | Receive | Work | Emit[Item], Any, None]
"""An operation that gives things one by one."""
