"""What every command has in common: where the service is, how to speak with it, how to print, and which status to end with."""

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import cached_property
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console

from taskclient import (
    Client,
    ClientError,
    Conflict,
    InvalidRequest,
    NoAnswer,
    NotAllowed,
    NotFound,
    Problem,
    StillRunning,
    Unavailable,
    UnexpectedAnswer,
)
from taskclient.connection import DEFAULT_URL

Shown = TypeVar("Shown", bound=BaseModel)

URL = "TASKCTL_URL"
API_KEY = "TASKCTL_API_KEY"
QUICK_RETRIES = 2
WIDE = 160
"""Columns of a table that goes into a file or a pipe."""


FULL = ("queue-full", "quota-exceeded")
"""What the queue or the tenant of one task says, while those of another may have room."""


class Exit(IntEnum):
    """Exit statuses; docs/taskctl.md has them for users."""

    OK = 0
    BAD = 1
    """A task did not complete; or doctor or check found something."""
    USAGE = 2
    NOT_FOUND = 3
    NO_SERVICE = 4
    CONFLICT = 5
    NOT_ALLOWED = 6
    STILL_RUNNING = 7


STATUS: tuple[tuple[type[ClientError], Exit], ...] = (
    (StillRunning, Exit.STILL_RUNNING),
    (NotFound, Exit.NOT_FOUND),
    (Conflict, Exit.CONFLICT),
    (NotAllowed, Exit.NOT_ALLOWED),
    (InvalidRequest, Exit.USAGE),
    (Problem, Exit.NO_SERVICE),
    (NoAnswer, Exit.NO_SERVICE),
    (UnexpectedAnswer, Exit.NO_SERVICE),
    (ClientError, Exit.BAD),
)


class Session:
    """One run of a command."""

    def __init__(self, url: str, *, as_json: bool) -> None:
        self.url = url
        self.as_json = as_json
        self.out = _console(sys.stdout)
        self.err = _console(sys.stderr)
        self._clients: list[Client] = []
        self._failed = Exit.OK

    @cached_property
    def client(self) -> Client:
        """For calls that a person waits for: a service that is not there is told within a second."""
        return self.connect(retries=QUICK_RETRIES)

    @cached_property
    def patient_client(self) -> Client:
        """For following tasks: a service that is restarted meanwhile is waited for."""
        return self.connect()

    def connect(self, **options: Any) -> Client:
        """A client of this service, closed with the session."""
        try:
            client = Client(self.url, api_key=os.environ.get(API_KEY) or None, **options)
        except ValueError as error:
            self.fail(str(error), Exit.USAGE)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def emit(self, *values: BaseModel | Any) -> None:
        """Print values as JSON, each on a line of its own."""
        for value in values:
            text = (
                value.model_dump_json(exclude_unset=True)
                if isinstance(value, BaseModel)
                else json.dumps(value, ensure_ascii=False)
            )
            sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def show(self, *what: Any) -> None:
        """Print for people; of a list, one after the other."""
        for one in what:
            if isinstance(one, list):
                self.show(*one)
            elif self.out.is_terminal:
                self.out.print(one, soft_wrap=isinstance(one, str))
            else:
                sys.stdout.write("".join(f"{line.rstrip()}\n" for line in self._plain(one)))

    def _plain(self, what: Any) -> list[str]:
        """The lines of something as they go into a file or a pipe: the last column of a table would be padded."""
        with self.out.capture() as captured:
            self.out.print(what, soft_wrap=isinstance(what, str))
        return captured.get().splitlines()

    def give(self, values: Iterable[Shown], shown: Callable[[list[Shown]], Any]) -> None:
        """A list: each value as JSON as soon as it is there, or a table of them all."""
        if self.as_json:
            for value in values:
                self.emit(value)
        else:
            self.show(shown(list(values)))

    def tell(self, value: Shown, shown: Callable[[Shown], Any]) -> None:
        """One thing: as JSON, or as people see it."""
        if self.as_json:
            self.emit(value)
        else:
            self.show(shown(value))

    def note(self, line: Any) -> None:
        """Say something beside the answer."""
        self.err.print(line, soft_wrap=True)

    def fail(self, line: str, status: Exit) -> NoReturn:
        """End with one line on standard error."""
        self.note(line)
        raise typer.Exit(status)

    def failed(self, status: Exit) -> None:
        """Something of several went wrong: go on, and end with this status, or that of what failed before."""
        self._failed = self._failed or status

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Tell what the service will not do with one task of several, and go on with the others.

        What would fail for each of them (no service, a wrong key) ends the command.
        """
        try:
            yield
        except (NotFound, Conflict, InvalidRequest) as error:
            self.failed(self._told(error))
        except Unavailable as error:
            if error.type not in FULL:
                raise
            self.failed(self._told(error))

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Turn an error of the client into its line and its status, and end with what has failed on the way."""
        try:
            yield
        except ClientError as error:
            raise typer.Exit(self._told(error)) from None
        except OSError as error:
            if error.filename is None:
                raise
            self.fail(f"{error.filename}: {error.strerror}", Exit.USAGE)
        finally:
            self.close()
        if self._failed:
            raise typer.Exit(self._failed)

    def _told(self, error: ClientError) -> Exit:
        """Say in one line what went wrong; the status for it."""
        if self.as_json and isinstance(error, Problem):
            sys.stderr.write(f"{json.dumps(dict(error.document), ensure_ascii=False)}\n")
        else:
            self.note(_line(error))
        return next(status for kind, status in STATUS if isinstance(error, kind))


def _console(stream: Any) -> Console:
    width = None if stream.isatty() else WIDE
    return Console(file=stream, highlight=False, markup=False, emoji=False, width=width)


def _line(error: ClientError) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, InvalidRequest):
        text += "".join(f" {_place(fault)}: {fault.get('message')}." for fault in error.errors if _adds(fault, text))
    if isinstance(error, NotAllowed):
        text += f" The key is taken from {API_KEY} or TASKS_API_KEY."
    if isinstance(error, NoAnswer):
        text += f" Is the service there? --url or {URL} says where; taskctl doctor looks closer."
    return text


def _place(fault: dict[str, Any]) -> str:
    return ".".join(str(part) for part in fault.get("location", ())[1:]) or "request"


def _adds(fault: dict[str, Any], text: str) -> bool:
    """Whether a fault says more than the detail does already."""
    return str(fault.get("message")) not in text


_SHARED = {
    "url": Annotated[str, typer.Option("--url", envvar=URL, help="Where the service is.", show_default=DEFAULT_URL)],
    "as_json": Annotated[bool, typer.Option("--json", help="Print JSON: one object a line, as the API has it.")],
}


def add(app: typer.Typer, *functions: Callable[..., None]) -> None:
    """Make functions commands of `app`. Each gets a Session first; to its own parameters come `--url` and `--json`."""
    for function in functions:
        app.command(function.__name__.strip("_").replace("_", "-"))(_with_session(function))


def _with_session(function: Callable[..., None]) -> Callable[..., None]:
    def run(**values: Any) -> None:
        session = Session(values.pop("url"), as_json=values.pop("as_json"))
        with session.telling():
            function(session, **values)

    keyword = inspect.Parameter.KEYWORD_ONLY
    _, *own = inspect.signature(function, eval_str=True).parameters.values()
    parameters = [
        *(one.replace(kind=keyword) for one in own),
        inspect.Parameter("url", keyword, default=DEFAULT_URL, annotation=_SHARED["url"]),
        inspect.Parameter("as_json", keyword, default=False, annotation=_SHARED["as_json"]),
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    run.__doc__ = function.__doc__
    return run
