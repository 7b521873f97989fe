import asyncio
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.services import wakeup
from app.services.wakeup import CANCELS, CHANGES, QUEUES, PollingWakeup, SocketWakeup, open_beside


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close whatever a test opened."""
    opened: list[SocketWakeup] = []
    begin = SocketWakeup.__init__

    def remember(self: SocketWakeup, folder: Path) -> None:
        begin(self, folder)
        opened.append(self)

    monkeypatch.setattr(SocketWakeup, "__init__", remember)
    yield
    for one in opened:
        one._sender.close()


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A folder of the test's own with a short path."""
    with tempfile.TemporaryDirectory(prefix="wake-", dir="/tmp") as folder:
        yield Path(folder)


async def test_a_notification_wakes_everyone_who_listens_on_its_channel(runtime: Path) -> None:
    sender, receiver = open_beside(runtime / "db"), open_beside(runtime / "db")
    assert isinstance(sender, SocketWakeup)
    ears = [receiver.listen(QUEUES), receiver.listen(QUEUES), receiver.listen(CHANGES)]
    sender.notify(QUEUES)
    assert [await ear.wait(0.3) for ear in ears] == [True, True, False]
    for ear in ears:
        ear.close()


async def test_other_databases_hear_nothing(runtime: Path) -> None:
    ear = open_beside(runtime / "one").listen(QUEUES)
    open_beside(runtime / "two").notify(QUEUES)
    assert not await ear.wait(0.1)
    ear.close()


async def test_a_notification_before_the_wait_is_not_lost(runtime: Path) -> None:
    wake = open_beside(runtime / "db")
    ear = wake.listen(CANCELS)
    wake.notify(CANCELS)
    assert await ear.wait(5)
    assert not await ear.wait(0.05)
    ear.close()


async def test_a_wake_up_comes_within_milliseconds(runtime: Path) -> None:
    wake = open_beside(runtime / "db")
    ear = wake.listen(QUEUES)
    delays = []
    for _ in range(50):
        waiting = asyncio.create_task(ear.wait(5))
        await asyncio.sleep(0)
        began = time.perf_counter()
        wake.notify(QUEUES)
        assert await waiting
        delays.append(time.perf_counter() - began)
    ear.close()
    assert sorted(delays)[25] < 0.5  # a poll would take its whole interval


async def test_the_socket_of_a_dead_process_is_removed_by_whoever_sends(runtime: Path) -> None:
    wake = open_beside(runtime / "db")
    assert isinstance(wake, SocketWakeup)
    folder = wake._folder / QUEUES
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(folder / "123-dead"))
    dead.close()
    alive = wake.listen(QUEUES)
    wake.notify(QUEUES)
    assert await alive.wait(5)
    assert len(list(folder.iterdir())) == 1
    alive.close()
    assert list(folder.iterdir()) == []


async def test_a_reader_that_does_not_read_never_holds_up_a_sender(runtime: Path) -> None:
    wake = open_beside(runtime / "db")
    deaf = wake.listen(QUEUES)
    began = time.monotonic()
    for _ in range(5000):
        wake.notify(QUEUES)
    assert time.monotonic() - began < 10
    assert await deaf.wait(5)
    deaf.close()


async def test_the_last_to_close_takes_the_folders_away_and_a_late_listener_makes_them_again(runtime: Path) -> None:
    first, second = open_beside(runtime / "db"), open_beside(runtime / "db")
    ear = first.listen(QUEUES)
    await second.close()
    assert any(runtime.iterdir())
    ear.close()
    await first.close()
    assert not any(runtime.iterdir())
    third = open_beside(runtime / "db")
    await open_beside(runtime / "db").close()
    late = third.listen(QUEUES)
    third.notify(QUEUES)
    assert await late.wait(5)
    late.close()
    await third.close()


def test_a_notification_never_raises(runtime: Path) -> None:
    wake = open_beside(runtime / "db")
    for path in sorted(runtime.rglob("*"), reverse=True):
        path.rmdir()
    wake.notify(QUEUES)


def test_a_folder_that_others_could_write_into_is_not_used(runtime: Path) -> None:
    open_beside(runtime / "db")
    folder = next(runtime.iterdir())
    folder.chmod(0o777)
    assert isinstance(open_beside(runtime / "db"), PollingWakeup)


async def test_a_database_with_a_long_path_has_its_sockets_elsewhere_and_everyone_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ("x" * 120) / "tasks.db"
    one = open_beside(file)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    other = open_beside(file)
    ear = one.listen(QUEUES)
    other.notify(QUEUES)
    assert await ear.wait(5)
    ear.close()
    await other.close()
    await one.close()


async def test_polling_wakes_at_the_timeout_or_when_poked() -> None:
    ear = PollingWakeup().listen(QUEUES)
    PollingWakeup().notify(QUEUES)
    assert not await ear.wait(0.01)
    ear.poke()
    assert await ear.wait(5)
    ear.close()


def test_the_longest_socket_path_is_below_what_the_kernel_takes() -> None:
    assert wakeup.LONGEST_SOCKET_PATH <= 104


async def test_a_wake_up_names_the_tasks_that_changed(runtime: Path) -> None:
    wake = open_beside(runtime / "db")
    ear = wake.listen(CHANGES)
    wake.notify(CHANGES, [3, 9_000_000_000_000_000_000])
    assert await ear.wait(5)
    assert ear.named() == {3, 9_000_000_000_000_000_000}
    assert ear.named() == set()
    ear.close()


async def test_a_wake_up_that_names_too_many_or_none_means_any(runtime: Path) -> None:
    wake = open_beside(runtime / "db")
    ear = wake.listen(CHANGES)
    for ids in ((), range(1, wakeup.MOST_NAMED + 2)):
        wake.notify(CHANGES, [7])
        wake.notify(CHANGES, ids)
        assert await ear.wait(5)
        assert ear.named() is None
    wake.notify(CHANGES, range(1, wakeup.MOST_NAMED + 1))
    assert await ear.wait(5)
    assert len(ear.named() or ()) == wakeup.MOST_NAMED
    ear.close()


async def test_a_flood_of_wake_ups_may_have_been_more_and_means_any(runtime: Path) -> None:
    """The kernel drops what does not fit into the queue of a socket."""
    wake = open_beside(runtime / "db")
    ear = wake.listen(CHANGES)
    for number in range(1, 1000):
        wake.notify(CHANGES, [number])
    assert await ear.wait(5)
    assert ear.named() is None
    ear.close()


def test_a_wake_up_of_somebody_who_speaks_otherwise_means_any() -> None:
    assert (wakeup.read("!"), wakeup.read(""), wakeup.read("1 2")) == ((), (), (1, 2))
