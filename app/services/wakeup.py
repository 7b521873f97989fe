"""Wake-ups between the processes that share a store. They are hints: losing every one only makes work slower.

On SQLite each waiting process has a Unix datagram socket in a folder for its channel; whoever has committed sends one
datagram to each. Measured: p50 0.7 ms at 0.1 % CPU, against 0.9 ms at 6 % for polling the file every millisecond.
On PostgreSQL the server passes them on (LISTEN and NOTIFY): p50 0.2 ms. A broker may take hints about work over
(`broker.py`).
"""

import asyncio
import contextlib
import hashlib
import os
import secrets
import socket
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from app.core.errors import SettingsError
from app.core.hint import Hint
from app.core.settings import Settings
from app.models.database import Database

if TYPE_CHECKING:
    from app.models.line import Line
    from app.models.streams import Streams

LONGEST_NAME = 32
LONGEST_SOCKET_PATH = 100
"""Unix socket paths of more than about 100 bytes are refused by the kernel."""

CHANNELS = QUEUES, CANCELS, CHANGES = ("queues", "cancels", "changes")
"""Channels: new work for workers, cancel requests for workers, any change for API processes that wait for one."""


MOST_NAMED = 200
"""A wake-up names up to so many tasks that have changed. With more, whoever hears it looks at all that it waits for."""
LARGEST_DATAGRAM = 21 * MOST_NAMED
FLOOD = 8
"""So many datagrams at once may have been more: some kernels keep ten for a socket and drop the rest."""


class Listener:
    """One process's ear on a channel. It may hear early, twice, or never. This one hears only `poke`."""

    def __init__(self) -> None:
        self._heard = asyncio.Event()
        self._named: set[int] = set()
        self._anything = False

    async def wait(self, timeout: float) -> bool:
        """Return True at a wake-up since the last call, False when `timeout` seconds are over."""
        try:
            async with asyncio.timeout(timeout):
                await self._heard.wait()
        except TimeoutError:
            return False
        self._heard.clear()
        return True

    def named(self) -> set[int] | None:
        """The tasks that were named since this was last asked; None if others may have changed too."""
        named, anything = self._named, self._anything
        self._named, self._anything = set(), False
        return None if anything else named

    def poke(self, ids: Collection[int] = ()) -> None:
        """Wake whoever waits here, from within the process. Without ids anything may have changed."""
        self._named.update(ids)
        self._anything = self._anything or not ids
        self._heard.set()

    def close(self) -> None:
        """Stop listening."""


class WorkEar:
    """A worker's ear for work. This one hears what `listener` hears, and every worker hears the same.

    A broker tells one worker at a time, who asks for it; so that one must say when it could not take all.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    async def wait(self, timeout: float) -> bool:
        """Return True when there may be work, False when `timeout` seconds are over."""
        return await self._listener.wait(timeout)

    def rest(self, poll_seconds: float) -> float:
        """How many seconds whoever listens here may go without looking by itself, where `poll_seconds` is usual."""
        return poll_seconds

    def asks(self, room: bool) -> None:
        """Say whether there is room for work."""

    def heard(self) -> Sequence[Hint]:
        """The hints since this was last asked."""
        return ()

    def still_to_say(self, heard: Sequence[Hint], claimed: Mapping[str, int], left: Collection[str]) -> None:
        """Tell others of what is left of `heard` after a claim of so many tasks of each queue; `left` are queues in which
        more may wait."""

    async def close(self) -> None:
        """Stop listening."""
        self._listener.close()


class Wakeup(Protocol):
    """How processes tell each other to look at the rows."""

    def notify(self, channel: str, ids: Collection[int] = ()) -> None:
        """Wake all who listen on `channel`. `ids` are the tasks concerned, none if it may be any. Never raises, never
        waits."""
        ...

    def listen(self, channel: str) -> Listener: ...

    def call_workers(self, came: Mapping[str, int]) -> None:
        """Wake workers: so many tasks came into each queue; empty where that is not known. Never raises, never waits."""
        ...

    def listen_for_work(self, queues: Sequence[str]) -> WorkEar:
        """The ear of a worker that serves these queues; none is every queue."""
        ...

    def about(self) -> dict[str, str]:
        """What `GET /health` says of it; a key that ends in `_warning` is something to see to."""
        ...

    async def close(self) -> None: ...


class EveryoneWakes:
    """New work wakes every worker that listens on the channel for it."""

    def call_workers(self: Wakeup, came: Mapping[str, int]) -> None:
        self.notify(QUEUES)

    def listen_for_work(self: Wakeup, queues: Sequence[str]) -> WorkEar:
        return WorkEar(self.listen(QUEUES))

    def about(self) -> dict[str, str]:
        return {}


class PollingWakeup(EveryoneWakes):
    """No wake-ups at all: everyone looks at the rows at their own interval. For where sockets are refused."""

    def notify(self, channel: str, ids: Collection[int] = ()) -> None:
        return

    def listen(self, channel: str) -> Listener:
        return Listener()

    async def close(self) -> None:
        return


class SocketWakeup(EveryoneWakes):
    """Datagrams through a folder that belongs to us alone, named after the database file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)

    def notify(self, channel: str, ids: Collection[int] = ()) -> None:
        try:
            names = os.listdir(self._folder / channel)
        except OSError:
            return
        said = spelled(ids).encode() if names else b""
        for name in names:
            self._send(said, f"{self._folder}/{channel}/{name}")

    def _send(self, said: bytes, path: str) -> None:
        try:
            self._sender.sendto(said, path)
        except ConnectionRefusedError:
            # Its process is gone: nobody will ever read there.
            Path(path).unlink(missing_ok=True)
        except OSError:
            # A full buffer means that it has wake-ups waiting already; a vanished file that it has closed.
            return

    def listen(self, channel: str) -> Listener:
        try:
            _claim_folders(self._folder)  # the last of another deployment may have tidied them away
            return _Ear(self._folder / channel / f"{os.getpid()}-{secrets.token_hex(3)}")
        except OSError:
            return Listener()

    async def close(self) -> None:
        """Stop sending; take the folders away if nobody else listens there."""
        self._sender.close()
        try:
            for channel in CHANNELS:
                (self._folder / channel).rmdir()
            self._folder.rmdir()
        except OSError:
            return


class _Ear(Listener):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._socket.bind(str(path))
        except OSError:
            self._socket.close()
            raise
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._drain)

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in range(sys.maxsize):
                said = self._socket.recv(LARGEST_DATAGRAM)
                self.poke(read(said.decode("ascii", "replace")) if number < FLOOD else ())

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._path.unlink(missing_ok=True)


class LineWakeup(EveryoneWakes):
    """Through the store itself. Whoever listens is poked, too, when a wake-up may have been missed."""

    def __init__(self, line: "Line") -> None:
        self._line = line
        self._listeners: dict[str, set[Listener]] = {channel: set() for channel in CHANNELS}
        line.on_heard(self._heard)
        self._serving = asyncio.create_task(line.run())

    def notify(self, channel: str, ids: Collection[int] = ()) -> None:
        self._line.call(channel, spelled(ids))

    def listen(self, channel: str) -> Listener:
        return _Receiver(self._line, channel, self._listeners[channel])

    def _heard(self, channel: str, said: str) -> None:
        ids = read(said)
        for listener in self._listeners.get(channel, ()):
            listener.poke(ids)

    async def close(self) -> None:
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)


class _Receiver(Listener):
    def __init__(self, line: "Line", channel: str, listeners: set[Listener]) -> None:
        super().__init__()
        self._line, self._channel, self._listeners = line, channel, listeners
        listeners.add(self)
        line.listen(channel)

    def close(self) -> None:
        if self in self._listeners:
            self._listeners.discard(self)
            self._line.leave(self._channel)


def spelled(ids: Collection[int]) -> str:
    """How a wake-up names tasks; empty for any."""
    return " ".join(map(str, ids)) if len(ids) <= MOST_NAMED else ""


def read(said: str) -> Sequence[int]:
    """The tasks that a wake-up names; none if it may be any, or if it is a wake-up of somebody who speaks otherwise."""
    try:
        return tuple(map(int, said.split()))
    except ValueError:
        return ()


def open_wakeup(database: Database) -> Wakeup:
    """The best wake-up that a store has itself: its own line, or sockets beside a file; polling where neither can be
    had."""
    line = database.line()
    if line is not None:
        return LineWakeup(line)
    return PollingWakeup() if database.path is None else open_beside(database.path.resolve())


def open_streams(settings: Settings) -> "Streams | None":
    """The way to the broker, None where there is none. Raises SettingsError for what cannot be one."""
    url = settings.broker_url.get_secret_value()
    if not url:
        return None
    try:
        # Not before it is asked for: nobody else needs the library.
        from app.models.streams import Streams
    except ModuleNotFoundError:
        message = "Wrong setting: BROKER_URL needs the package redis: pip install 'redis[hiredis]'."
        raise SettingsError(message) from None
    return Streams(url, settings.broker_prefix)


def open_beside(database_file: Path) -> Wakeup:
    """Sockets for those who share this file, or polling where they cannot be had."""
    folder = _folder(database_file)
    try:
        _claim_folders(folder)
        return SocketWakeup(folder)
    except OSError:
        return PollingWakeup()


def _folder(database_file: Path) -> Path:
    """Beside the database, or under /tmp where that path is too long. It follows from the file alone: were it to depend
    on the environment, an API started by a person and a worker started by a service manager would never meet."""
    beside = database_file.with_name(database_file.name + ".wake")
    if len(os.fsencode(beside)) + LONGEST_NAME <= LONGEST_SOCKET_PATH:
        return beside
    name = hashlib.sha256(os.fsencode(beside)).hexdigest()[:12]
    return Path("/tmp") / f"tasks-{os.getuid()}-{name}"  # noqa: S108 used only if it is ours alone, see _claim_folders


def _claim_folders(folder: Path) -> None:
    """Make the folders, or see that they are ours alone. Raises OSError where they are not: whoever made them could
    listen, or have us write elsewhere."""
    for part in (folder, *(folder / channel for channel in CHANNELS)):
        part.mkdir(mode=0o700, exist_ok=True)
        found = part.lstat()
        if found.st_uid != os.getuid() or found.st_mode & 0o077 or part.is_symlink():
            raise PermissionError(f"{part} is not ours alone")
