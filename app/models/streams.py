"""Redis Streams as this service uses them: one stream for each queue, one group of readers, one stream of the queues' names.

The only module that speaks to Redis, by commands on streams alone. What a message means is said in `core/hint.py`. Messages
are read with NOACK: the row is the truth, so a reader that dies leaves nothing behind that anyone would have to take over.
"""

import asyncio
import os
import re
import secrets
import socket
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from app.core.errors import BrokerUnavailable, SettingsError
from app.core.hint import MOST_PASSES, Hint, read

GROUP = "workers"
MOST_MESSAGES = 1000
"""About how many messages a stream keeps; it would take so many, unheard, until one is lost."""
MOST_READ = 100
ANSWER_SECONDS = 1.0
"""How long the server may take to answer."""
NAME = re.compile(r"[A-Za-z0-9._:-]{1,64}")
TROUBLE = (RedisError, OSError, TimeoutError)

Answer = TypeVar("Answer")


class GroupGone(Exception):
    """A stream or its group is not there (any more), and what was in it is not known."""


class Streams:
    """One process's way to one Redis server. Every call ends within `ANSWER_SECONDS`; each raises BrokerUnavailable."""

    def __init__(self, url: str, prefix: str) -> None:
        parts = urlsplit(url)
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._prefix = prefix
        self._reader = f"{socket.gethostname()[:40]}-{secrets.token_hex(6)}"
        self.strange = 0
        """Messages that were none of ours."""
        try:
            # Each wait has a deadline of ours, and each failure is ours to deal with.
            options: dict[str, Any] = {"protocol": 2, "driver_info": None, "retry": Retry(NoBackoff(), 0)}
            options |= {"socket_timeout": None, "socket_connect_timeout": None, "socket_keepalive": True}
            client: Any = Redis
            self._redis = client.from_url(url, **options)
            self._redis.connection_pool.make_connection()
        except TypeError as error:
            option = re.search(r"argument '(\w+)'", str(error))
            what = f"there is no option {option[1]!r}" if option else "its options do not fit"
            raise SettingsError(f"Wrong setting: BROKER_URL: {what}.") from None
        except (ValueError, RedisError) as error:
            raise SettingsError(f"Wrong setting: BROKER_URL: {error}") from None

    async def say(self, hints: Iterable[Hint]) -> None:
        """Add a message for each."""
        pipeline = self._redis.pipeline(transaction=False)
        for hint in hints:
            said = {"tasks": hint.tasks, "passes": hint.passes}
            pipeline.xadd(self._key(hint.queue), said, maxlen=MOST_MESSAGES, approximate=True)
        await self._answered(pipeline.execute())

    async def announce(self, queues: Iterable[str]) -> None:
        """Have those who serve every queue know these."""
        said = {"queues": " ".join(queues)}
        await self._answered(self._redis.xadd(self._names, said, maxlen=MOST_MESSAGES, approximate=True))

    async def announced(self, after: str) -> tuple[list[str], str]:
        """The queues that were announced since `after` (at first "0"), and what to ask for next."""
        answer = await self._answered(self._redis.xread({self._names: after}, count=MOST_MESSAGES))
        said = [(id_, fields) for _, messages in answer for id_, fields in messages]
        names = [name for _, fields in said for name in fields.get(b"queues", b"").decode("ascii", "replace").split()]
        last = said[-1][0].decode() if said else after
        return [name for name in names if NAME.fullmatch(name)], last

    async def join(self, queues: Iterable[str]) -> None:
        """Make the streams of these queues and their group, where they are not there yet."""
        pipeline = self._redis.pipeline(transaction=False)
        for queue in queues:
            # From the beginning: what was said before there was a group has not been heard.
            pipeline.xgroup_create(self._key(queue), GROUP, id="0", mkstream=True)
        for answer in await self._answered(pipeline.execute(raise_on_error=False)):
            if isinstance(answer, Exception) and not str(answer).startswith("BUSYGROUP"):
                raise BrokerUnavailable(_said(answer))

    async def read(self, queues: Sequence[str], seconds: float) -> list[Hint]:
        """The next hints about these queues that no other reader gets, waiting up to `seconds` for one. Raises GroupGone."""
        by_key = {self._key(queue).encode(): queue for queue in queues}
        wanted = dict.fromkeys(by_key, ">")
        block = round(1000 * seconds)
        reading = self._redis.xreadgroup(GROUP, self._reader, wanted, count=MOST_READ, block=block, noack=True)
        answer = await self._answered(reading, seconds + ANSWER_SECONDS)
        return [self._hint(by_key[key], fields) for key, messages in answer for _, fields in messages]

    def _hint(self, queue: str, fields: dict[bytes, bytes]) -> Hint:
        hint = read(queue, fields)
        self.strange += hint is None
        return hint or Hint(queue, 1, MOST_PASSES)  # worth a look, and no more

    async def leave(self, queues: Iterable[str]) -> None:
        """Be no reader any more."""
        await self._remove((queue, self._reader) for queue in queues)

    async def remove_silent(self, queues: Iterable[str], seconds: float) -> None:
        """Remove readers that have not asked for so long: they died. One that was only busy comes back by asking."""
        for queue in queues:
            readers = await self._answered(self._redis.xinfo_consumers(self._key(queue), GROUP))
            silent = [reader["name"] for reader in readers if reader["idle"] > 1000 * seconds]
            await self._remove((queue, name) for name in silent)

    async def _remove(self, readers: Iterable[tuple[str, str]]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for queue, name in readers:
            pipeline.xgroup_delconsumer(self._key(queue), GROUP, name)
        if len(pipeline):
            await self._answered(pipeline.execute(raise_on_error=False))

    async def answers(self) -> None:
        """Return when the server has answered."""
        await self._answered(self._redis.xlen(self._names))

    async def eviction(self) -> str | None:
        """What the server does when its memory is full (`maxmemory-policy`); None if it does not say, or has no limit."""
        try:
            memory = await self._answered(self._redis.info("memory"))
        except BrokerUnavailable as error:
            if isinstance(error.__cause__, NoPermissionError):
                return None
            raise
        return str(memory["maxmemory_policy"]) if memory.get("maxmemory") else None

    async def close(self) -> None:
        """Let go of the connections."""
        try:
            await self._answered(self._redis.aclose())
        except BrokerUnavailable:
            return

    async def _answered(self, asking: Awaitable[Answer], seconds: float = ANSWER_SECONDS) -> Answer:
        try:
            # A command that is given up takes its connection with it, so no answer is ever taken for another's.
            async with asyncio.timeout(seconds):
                return await asking
        except ResponseError as error:
            if str(error).startswith(("NOGROUP", "UNBLOCKED")):
                raise GroupGone from error
            raise BrokerUnavailable(_said(error)) from error
        except TROUBLE as error:
            raise BrokerUnavailable(_said(error)) from error

    def _key(self, queue: str) -> str:
        return f"{self._prefix}:queue:{queue}"

    @property
    def _names(self) -> str:
        return f"{self._prefix}:queues"


def _said(error: BaseException) -> str:
    """The first line of what the library or the system says, without a name or a password in it."""
    if isinstance(error, TimeoutError):
        return "it does not answer"
    cause = error.__cause__ or error.__context__
    number = re.search(r"\[Errno (\d+)\]", str(cause))
    if isinstance(error, exceptions.ConnectionError) and number:
        return os.strerror(int(number[1])).lower()
    if isinstance(error, exceptions.ConnectionError) and isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return str(error).split("\n", 1)[0].rstrip(".") or type(error).__name__
