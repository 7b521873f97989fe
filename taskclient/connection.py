"""How steps are taken: by blocking calls, or by asynchronous ones. This is all that the two clients do not share."""

import asyncio
import os
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Self, TypeAlias, TypeVar
from urllib.parse import urlsplit

import httpx

from taskclient.patience import Patience, Read, Send, Sleep, no_answer, tried
from taskclient.steps import Emit, Receive, Request, Steps, Stream, Work

T = TypeVar("T")
Item = TypeVar("Item")

DEFAULT_URL = "http://localhost:8000"
API_KEY = "TASKS_API_KEY"
"""Where the key comes from that nobody gave."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")

Actions: TypeAlias = Generator[Send | Read | Sleep | Work | Emit[Any], Any, T]
"""An operation down to what a connection can do: its requests have become tries."""


def patiently(steps: Generator[Any, Any, T], patience: Patience) -> Actions[T]:
    """`steps`, with each request sent until it is answered. Raises ClientError."""
    chance = random.Random()  # noqa: S311 jitter, not secrets
    reply: Any = None
    trouble: httpx.TransportError | None = None
    try:
        while True:
            try:
                step = steps.send(reply) if trouble is None else steps.throw(trouble)
            except httpx.TransportError as failure:  # a stream broke off, and the operation cannot take it up again
                raise no_answer(failure, unsure=False) from failure
            reply, trouble = None, None
            try:
                if isinstance(step, Request):
                    reply = yield from tried(step, patience, time.monotonic, chance)
                else:
                    reply = yield Read() if isinstance(step, Receive) else step
            except httpx.TransportError as failure:
                trouble = failure
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        steps.close()


class _Address:
    """What both connections are made with."""

    def __init__(
        self, url: str, api_key: str | None, timeout: float, retries: int, headers: Mapping[str, str] | None
    ) -> None:
        host = _host(url)
        api_key = os.environ.get(API_KEY) if api_key is None else api_key
        self.url = url.rstrip("/")
        self._patience = Patience(timeout, retries)
        self._options: dict[str, Any] = {
            "base_url": self.url,
            "headers": {**({"Authorization": f"Bearer {api_key}"} if api_key else {}), **(headers or {})},
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=100),
            # A proxy from the environment would be asked for this very machine too.
            "trust_env": host not in LOOPBACK,
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"


def _host(url: str) -> str:
    """The host of an address. Raises ValueError for what is none; httpx would find out when it sends, or not at all."""
    try:
        parts = urlsplit(url)
        httpx.URL(url)
        if parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0):
            return parts.hostname
    except (ValueError, httpx.InvalidURL):
        pass
    raise ValueError(f"{url!r} is not the address of a service. One looks like {DEFAULT_URL}.")


def _parts(send: Send) -> dict[str, Any]:
    request, form = send.request, send.request.form
    return {
        "method": request.method,
        "url": request.path,
        "params": request.params or None,
        "content": request.content,
        "files": {"file": (form.name, form.stream, form.content_type)} if form else None,
        "headers": request.headers,
        "timeout": send.timeout,
    }


class Connection(_Address):
    """Takes the steps of an operation in the thread that calls. It may be shared by threads."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float = Patience.timeout,
        retries: int = Patience.retries,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`timeout`: seconds that one call may take, all its tries together; `retries`: tries after the first.

        Raises ValueError for what is no address.
        """
        super().__init__(url, api_key, timeout, retries, headers)
        self._http = httpx.Client(transport=transport, **self._options)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        playing = self._play(steps)
        while True:
            try:
                next(playing)
            except StopIteration as end:
                result: T = end.value
                return result

    def _iterate(self, stream: Stream[Item]) -> Iterator[Item]:
        yield from self._play(stream)

    def _play(self, steps: Generator[Any, Any, T]) -> Generator[Any, None, T]:
        """Take every step; give what is emitted, return what the operation returns."""
        actions = patiently(steps, self._patience)
        reply: Any = None
        trouble: httpx.TransportError | None = None
        response: httpx.Response | None = None
        body: Iterator[bytes] = iter(())
        try:
            while True:
                action = actions.send(reply) if trouble is None else actions.throw(trouble)
                reply, trouble = None, None
                try:
                    match action:
                        case Send():
                            if response is not None:
                                response.close()
                            reply = response = self._http.send(self._http.build_request(**_parts(action)), stream=True)
                            body = response.iter_bytes()
                        case Read():
                            reply = next(body, None)
                        case Sleep():
                            time.sleep(action.seconds)
                        case Work():
                            reply = action.function()
                        case Emit():
                            yield action.item
                except httpx.TransportError as failure:
                    trouble = failure
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            actions.close()
            if response is not None:
                response.close()


class AsyncConnection(_Address):
    """Takes the steps of an operation on the event loop."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float = Patience.timeout,
        retries: int = Patience.retries,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`timeout`: seconds that one call may take, all its tries together; `retries`: tries after the first.

        Raises ValueError for what is no address.
        """
        super().__init__(url, api_key, timeout, retries, headers)
        self._http = httpx.AsyncClient(transport=transport, **self._options)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, steps: Steps[T]) -> T:
        returned: list[T] = []
        async with aclosing(self._play(steps, returned)) as playing:
            async for _ in playing:
                pass
        return returned[0]

    async def _iterate(self, stream: Stream[Item]) -> AsyncGenerator[Item, None]:
        async with aclosing(self._play(stream, [])) as playing:
            async for item in playing:
                yield item

    async def _play(self, steps: Generator[Any, Any, T], returned: list[T]) -> AsyncGenerator[Any, None]:
        """Take every step; give what is emitted, put what the operation returns into `returned`."""
        actions = patiently(steps, self._patience)
        reply: Any = None
        trouble: httpx.TransportError | None = None
        response: httpx.Response | None = None
        body: AsyncIterator[bytes] | None = None
        try:
            while True:
                action = actions.send(reply) if trouble is None else actions.throw(trouble)
                reply, trouble = None, None
                try:
                    match action:
                        case Send():
                            if response is not None:
                                await response.aclose()
                            request = self._http.build_request(**_parts(action))
                            reply = response = await self._http.send(request, stream=True)
                            body = response.aiter_bytes()
                        case Read() if body is not None:
                            reply = await anext(body, None)
                        case Sleep():
                            await asyncio.sleep(action.seconds)
                        case Work():
                            reply = await asyncio.to_thread(action.function)
                        case Emit():
                            yield action.item
                except httpx.TransportError as failure:
                    trouble = failure
        except StopIteration as end:
            returned.append(end.value)
        finally:
            actions.close()
            if response is not None:
                await response.aclose()
