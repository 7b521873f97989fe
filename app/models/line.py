"""`Line`: PostgreSQL's LISTEN/NOTIFY as a way for processes to call each other. A hint and never more: what counts are rows.

One connection for each process. It is made again when it is lost; meanwhile calls get lost too, and everyone polls.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from random import Random

import asyncpg

from app.core.logger import structlog
from app.models.store import DEADLINE_SECONDS, reason

PREFIX = "task_service_"
PING_SECONDS = 15.0
"""How often an idle line is tried: one that is cut without a word would stay silent for ever."""
LONGEST_PAUSE_SECONDS = 5.0
DRIVER_TROUBLE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What the driver raises. The last is what it says when the server's farewell came between two calls."""


class Line:
    """Calls channels and hears them being called, from a task of its own (`run`); nobody who calls ever waits."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]]) -> None:
        self._connect = connect
        self._heard: Callable[[str, str], None] = lambda channel, said: None
        self._wanted: dict[str, int] = {}
        self._calls: set[tuple[str, str]] = set()
        self._work = asyncio.Event()
        self._random = Random()  # noqa: S311 jitter, not secrets
        self.connected = False

    def on_heard(self, heard: Callable[[str, str], None]) -> None:
        """`heard` is called with the name of a channel and what was said there; with nothing, when a call may have been
        missed."""
        self._heard = heard

    def call(self, channel: str, said: str = "") -> None:
        """Have everyone who listens on `channel` hear what is said (up to 7,900 bytes) soon. Calls that come while one is
        under way go out together, those that say the same as one."""
        self._calls.add((channel, said))
        self._work.set()

    def listen(self, channel: str) -> None:
        """Hear `channel`; once for each time it was asked for."""
        self._wanted[channel] = self._wanted.get(channel, 0) + 1
        self._work.set()

    def leave(self, channel: str) -> None:
        """Take back one `listen`. The server is told when there is time: who has left often comes back at once."""
        self._wanted[channel] -= 1

    async def run(self) -> None:
        """Keep the connection and serve it, until cancelled."""
        pause = 0.0
        while True:
            try:
                async with asyncio.timeout(DEADLINE_SECONDS):
                    connection = await self._connect()
            except DRIVER_TROUBLE as error:
                self._tell("the line for wake-ups is down; polling goes on", error, first=pause == 0.0)
            else:
                began = asyncio.get_running_loop().time()
                try:
                    await self._serve(connection)
                except DRIVER_TROUBLE as error:
                    self._tell("the line for wake-ups was lost; polling goes on", error, first=True)
                finally:
                    self.connected = False
                    connection.terminate()
                if asyncio.get_running_loop().time() - began > LONGEST_PAUSE_SECONDS:
                    pause = 0.0
            # Even a server that takes every connection and drops it at once must not have us spin.
            pause = min(LONGEST_PAUSE_SECONDS, max(0.1, 2 * pause))
            await asyncio.sleep(pause * self._random.uniform(0.5, 1.0))

    def _tell(self, what: str, error: BaseException, *, first: bool) -> None:
        if first:
            structlog.get_logger("app.line").warning(what, reason=reason(error))

    async def _serve(self, connection: asyncpg.Connection) -> None:
        heard: set[str] = set()
        connection.add_termination_listener(lambda _: self._work.set())
        self.connected = True
        while True:
            self._work.clear()
            async with asyncio.timeout(DEADLINE_SECONDS):
                await self._say(connection, heard)
            try:
                async with asyncio.timeout(PING_SECONDS):
                    await self._work.wait()
            except TimeoutError:
                async with asyncio.timeout(DEADLINE_SECONDS):
                    await self._tidy(connection, heard)

    async def _say(self, connection: asyncpg.Connection, heard: set[str]) -> None:
        """Listen where it is asked for, then call who is to be called. Raises what `asyncpg` raises on a lost connection."""
        for channel in [name for name, number in self._wanted.items() if number and name not in heard]:
            await connection.add_listener(PREFIX + channel, self._hear)
            heard.add(channel)
            self._heard(channel, "")  # it may have been called before we could hear it
        if connection.is_closed():
            raise ConnectionError("the server closed the connection")
        calls, self._calls = self._calls, set()
        if calls:
            # One transaction, and no wait for the disk: nothing is stored.
            await connection.execute(
                "SELECT pg_notify($1 || name, said) FROM unnest($2::text[], $3::text[]) AS calls (name, said)",
                *(PREFIX, [channel for channel, _ in calls], [said for _, said in calls]),
            )

    def _hear(self, connection: object, pid: int, channel: str, said: object) -> None:
        self._heard(channel.removeprefix(PREFIX), str(said))

    async def _tidy(self, connection: asyncpg.Connection, heard: set[str]) -> None:
        """Stop listening where nobody has come back, and see that the server still answers."""
        for channel in [name for name in heard if not self._wanted.get(name)]:
            with contextlib.suppress(asyncpg.InterfaceError):
                await connection.remove_listener(PREFIX + channel, self._hear)
            heard.discard(channel)
        await connection.execute("SELECT 1")
