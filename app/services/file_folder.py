"""`FileFolder`: files in a folder of this host, or one that all hosts see."""

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Self

from app.core.errors import StoreFull, StoreUnavailable
from app.services.file_store import Tally, name_of

DRAFTS = "drafts"


class FileFolder:
    """Files by their ids, in sub-folders by the first two digits, so that no folder grows too long."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ensure_usable(self) -> None:
        """Nothing to be asked: the folder is made with its first file."""

    def create(self, most_bytes: int, file_id: str | None = None) -> "FolderDraft":
        with _translated():
            return FolderDraft(self._folder, file_id or secrets.token_hex(16), Tally(most_bytes))

    def open(self, file_id: str) -> BufferedReader:
        with _translated():
            return open(_path(self._folder, file_id), "rb", opener=_no_link)

    def size(self, file_id: str) -> int:
        with _translated():
            return _path(self._folder, file_id).stat().st_size

    def remove(self, file_id: str) -> None:
        with _translated():
            _path(self._folder, file_id).unlink(missing_ok=True)

    def clear_drafts(self, idle_seconds: float) -> None:
        before = time.time() - idle_seconds
        for path in (self._folder / DRAFTS).glob("*"):
            with contextlib.suppress(FileNotFoundError), _translated():  # another process clears as well
                if path.stat().st_mtime < before:
                    path.unlink()


def _no_link(path: str, flags: int) -> int:
    """Open a file of ours. A link that somebody has put there, to a file that is not, is not there."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileNotFoundError(path) from error
        raise


class FolderDraft:
    """A file being written, under `drafts` until its commit."""

    def __init__(self, folder: Path, file_id: str, tally: Tally) -> None:
        self.id = file_id
        self._tally = tally
        self._final = _path(folder, file_id)
        self._path = folder / DRAFTS / file_id
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self._path.open("xb")

    @property
    def size(self) -> int:
        return self._tally.size

    def write(self, chunk: bytes) -> None:
        self._tally.add(chunk)
        with _translated():
            self._stream.write(chunk)

    def commit(self) -> str:
        with _translated():
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            if not self._final.parent.exists():
                self._final.parent.mkdir(exist_ok=True)
                _sync_folder(self._final.parent.parent)
            self._path.rename(self._final)
            _sync_folder(self._final.parent)
        return self._tally.sha256

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def discard(self) -> None:
        with contextlib.suppress(OSError):  # what cannot be written now may not be flushed either
            self._stream.close()
        with contextlib.suppress(OSError):  # nor deleted: it is cleared away later
            self._path.unlink(missing_ok=True)


def _path(folder: Path, file_id: str) -> Path:
    return folder / name_of(file_id)


def _sync_folder(folder: Path) -> None:
    """A rename is on disk when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(f"There is no room for files: {error.strerror}.") from error
        raise StoreUnavailable(f"The folder of files is not available: {error.strerror}") from error
