"""`FileStore`: where the bytes of files are. A folder; an object store would offer the same few calls.

Every call blocks: use it from a thread, or in a runner. What is known about a file is a row in the store (see
models/files.py); a row is only written when the bytes are safe here, and bytes are only removed when the row is gone.
"""

import contextlib
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Self

from app.core.errors import StoreUnavailable, TooLarge
from app.core.file import FILE_ID

CHUNK_BYTES = 256 * 1024
DRAFTS = "drafts"


_ID = re.compile(FILE_ID)


class FileStore:
    """Files by their ids, in sub-folders by the first two digits, so that no folder grows too long."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, most_bytes: int) -> "Draft":
        """A new file to write to. Raises StoreUnavailable if the folder cannot be written."""
        with _translated():
            return Draft(self._folder, secrets.token_hex(16), most_bytes)

    def open(self, file_id: str) -> BufferedReader:
        """The file from its beginning. Raises FileNotFoundError, StoreUnavailable."""
        with _translated():
            return _path(self._folder, file_id).open("rb")

    def remove(self, file_id: str) -> None:
        """Delete the bytes; fine if they are gone already."""
        with _translated():
            _path(self._folder, file_id).unlink(missing_ok=True)

    def clear_drafts(self, idle_seconds: float) -> None:
        """Remove what nobody has written to for so long: its writer died."""
        before = time.time() - idle_seconds
        for path in (self._folder / DRAFTS).glob("*"):
            with contextlib.suppress(FileNotFoundError):  # another process clears as well
                if path.stat().st_mtime < before:
                    path.unlink()


class Draft:
    """A file being written. It exists for nobody until `commit`; used as a context manager it leaves nothing behind."""

    def __init__(self, folder: Path, file_id: str, most_bytes: int) -> None:
        self.id = file_id
        self.size = 0
        self._most_bytes = most_bytes
        self._hash = hashlib.sha256()
        self._final = _path(folder, file_id)
        self._path = folder / DRAFTS / file_id
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self._path.open("xb")

    def write(self, chunk: bytes) -> None:
        """Append. Raises TooLarge beyond the limit, StoreUnavailable when the disk is full."""
        self.size += len(chunk)
        if self.size > self._most_bytes:
            raise TooLarge("file", self._most_bytes)
        self._hash.update(chunk)
        with _translated():
            self._stream.write(chunk)

    def commit(self) -> str:
        """Put it in its place, on disk to stay. Returns its SHA-256 in hexadecimal."""
        with _translated():
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            if not self._final.parent.exists():
                self._final.parent.mkdir(exist_ok=True)
                _sync_folder(self._final.parent.parent)
            self._path.rename(self._final)
            _sync_folder(self._final.parent)
        return self._hash.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def discard(self) -> None:
        """Leave nothing behind of what was not committed."""
        with contextlib.suppress(OSError):  # what cannot be written now may not be flushed either
            self._stream.close()
        self._path.unlink(missing_ok=True)


def _path(folder: Path, file_id: str) -> Path:
    if not _ID.fullmatch(file_id):  # whatever an executor was told to open, it stays within the folder
        raise FileNotFoundError(file_id)
    return folder / file_id[:2] / file_id


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
        raise StoreUnavailable(f"The folder of files is not available: {error}") from error
