"""Backs up a database while the service works on it: a copy of one moment, synced, checked, and only then under its name."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.core.errors import StoreError
from app.models import backup
from app.models import checks as rows
from app.models.database import Database
from app.services.checker import Checker, CheckResult


async def back_up(source: Path, target: Path, progress: Callable[[float], None]) -> list[CheckResult]:
    """Copy the database at `source` to the new file `target`; `progress` hears the part that is done.

    Returns what the checker asked of the copy; of a schema older than this program's only whether it is sound. What is
    broken in `source` is broken in the copy too, which is kept all the same. Raises StoreError, and then leaves nothing.
    """
    given_up = threading.Event()

    def tell(part: float) -> None:
        if given_up.is_set():
            raise InterruptedError("the backup was given up")
        progress(part)

    with _partial(source, target) as partial:
        try:
            await asyncio.to_thread(backup.copy, source, partial, tell)
        except asyncio.CancelledError:
            given_up.set()  # its thread would go on to the end, and the process would wait for that
            raise
        findings = await _checked(partial, source)
        await asyncio.to_thread(_publish, partial, target)
    return findings


async def _checked(copy: Path, source: Path) -> list[CheckResult]:
    database = Database(f"sqlite:///{copy}")
    try:
        checker = Checker(database)
        async with database.read() as connection:
            version = await rows.schema_version(connection)
        if version == "none":
            raise StoreError(f"{source} is no database of this service.")
        if not rows.is_current(version):
            return [await checker.soundness()]
        return [finding async for finding in checker.findings()]
    finally:
        await database.close()


@contextmanager
def _partial(source: Path, target: Path) -> Iterator[Path]:
    """An empty file beside `target` that nobody else may read, gone at the end."""
    if target.exists():
        raise StoreError(f"{target} is there already; a backup overwrites nothing.")
    if not source.exists():
        raise StoreError(f"There is no database at {source}.")
    path = target.with_name(f"{target.name}.partial")
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        raise StoreError(f"{path} is there: another backup is being made, or one was broken off. Delete it.") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from error
    try:
        yield path
    finally:
        for left in (path, *(path.with_name(path.name + ending) for ending in ("-wal", "-shm", "-journal"))):
            left.unlink(missing_ok=True)


def _publish(partial: Path, target: Path) -> None:
    """Give the copy its name, once it is on the disk."""
    try:
        _sync(partial)
        try:
            os.link(partial, target)  # unlike a rename, it fails where somebody has made `target` meanwhile
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            partial.rename(target)
        with suppress(OSError):  # some file systems sync no folders
            _sync(target.parent)
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror}") from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
