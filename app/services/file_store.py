"""`FileStore`: where the bytes of files are. There are two: a folder (services/file_folder.py) and a bucket of an
S3-compatible object store (services/file_bucket.py); services/file_address.py opens the one that an address means.

Every call blocks: use it from a thread, or in a runner. What is known about a file is a row in the store (see
models/files.py); a row is only written when the bytes are safe here, and bytes are only removed when the row is gone.
"""

import hashlib
import re
from io import BufferedReader
from types import TracebackType
from typing import Protocol, Self

from app.core.errors import TooLarge
from app.core.file import FILE_ID

CHUNK_BYTES = 256 * 1024
_ID = re.compile(FILE_ID)


class Draft(Protocol):
    """A file being written. It exists for nobody until `commit`; used as a context manager it leaves nothing behind."""

    id: str

    @property
    def size(self) -> int:
        """Bytes that were written."""
        ...

    def write(self, chunk: bytes) -> None:
        """Append. Raises TooLarge beyond the limit, StoreFull when there is no room, StoreUnavailable."""
        ...

    def commit(self) -> str:
        """Put it in its place, to stay. Returns its SHA-256 in hexadecimal. Raises StoreUnavailable."""
        ...

    def discard(self) -> None:
        """Leave nothing behind of what was not committed."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class FileStore(Protocol):
    """Files by their ids."""

    def ensure_usable(self) -> None:
        """Raise StoreError with one clear line if files can neither be written nor read here."""
        ...

    def create(self, most_bytes: int, file_id: str | None = None) -> Draft:
        """A new file to write to, with a new id if none is given. Raises StoreUnavailable."""
        ...

    def open(self, file_id: str) -> BufferedReader:
        """The file from its beginning. Raises FileNotFoundError, StoreUnavailable."""
        ...

    def size(self, file_id: str) -> int:
        """How many bytes it has. Raises FileNotFoundError, StoreUnavailable."""
        ...

    def remove(self, file_id: str) -> None:
        """Delete the bytes; fine if they are gone already. Raises StoreUnavailable."""
        ...

    def clear_drafts(self, idle_seconds: float) -> None:
        """Remove what nobody has written to for so long: its writer died."""
        ...


class Tally:
    """Counts and hashes what is written to a draft, and refuses what is too much."""

    def __init__(self, most_bytes: int) -> None:
        self.size = 0
        self._most_bytes = most_bytes
        self._hash = hashlib.sha256()

    def add(self, chunk: bytes) -> None:
        """Raises TooLarge beyond the limit."""
        self.size += len(chunk)
        if self.size > self._most_bytes:
            raise TooLarge("file", self._most_bytes)
        self._hash.update(chunk)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def name_of(file_id: str) -> str:
    """Where a file is within its folder or bucket. Raises FileNotFoundError for what is no id: whatever an executor was told
    to open, it stays within."""
    if not _ID.fullmatch(file_id):
        raise FileNotFoundError(file_id)
    return f"{file_id[:2]}/{file_id}"
