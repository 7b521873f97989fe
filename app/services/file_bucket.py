"""`FileBucket`: files in a bucket of S3, or of anything that speaks its language, for any number of hosts.

Region, endpoint and credentials come from the environment, under the names that every S3 program knows. Uploads are signed
with the SHA-256 of each request's body, so the server refuses what was damaged on its way.
"""

import contextlib
import io
import re
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import timedelta
from io import BufferedReader
from queue import Full, Queue
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError
from obstore.store import S3Store

from app.core.errors import StoreError, StoreUnavailable
from app.services.file_store import Tally, name_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PART_BYTES = 5 * 2**20
"""The least that S3 takes as one part of many. What is shorter goes in one request."""
PARTS_AT_ONCE = 2
READ_BYTES = 2**20
"""What one request fetches: each can be repeated, and none lasts as long as a slow client needs for the whole file."""
WAITING_CHUNKS = 8
CONNECT_SECONDS = 3
REQUEST_SECONDS = 20
RETRY_SECONDS = 8
LOOK_SECONDS = 0.1


class FileBucket:
    """Files by their ids, under the prefix of an address `s3://bucket/prefix`."""

    def __init__(self, url: str) -> None:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self.name = url
        with _translated(self.name):
            self._store = S3Store(
                bucket,
                prefix=prefix.strip("/") or None,
                client_options={
                    "allow_http": True,  # where the endpoint says http://, it is meant
                    "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                    "timeout": timedelta(seconds=REQUEST_SECONDS),
                },
                retry_config={
                    "max_retries": 3,
                    "retry_timeout": timedelta(seconds=RETRY_SECONDS),
                    "backoff": {
                        "init_backoff": timedelta(milliseconds=100),
                        "max_backoff": timedelta(seconds=2),
                        "base": 2,
                    },
                },
            )

    def ensure_usable(self) -> None:
        """Write a byte, read it, delete it: the rights for just that are needed. Raises StoreError."""
        name = f"probe-{secrets.token_hex(8)}"
        try:
            with _translated(self.name):
                obstore.put(self._store, name, b"1")
                obstore.get_range(self._store, name, start=0, end=1)
                obstore.delete(self._store, name)
        except FileNotFoundError:
            raise StoreError(f"The files in {self.name} cannot be used: there is no such bucket.") from None
        except StoreUnavailable as error:
            raise StoreError(str(error).replace("are not available", "cannot be used")) from None

    def create(self, most_bytes: int, file_id: str | None = None) -> "BucketDraft":
        return BucketDraft(self._send, file_id or secrets.token_hex(16), Tally(most_bytes))

    def _send(self, file_id: str, data: bytes | Iterator[bytes]) -> None:
        with _written(self.name):
            obstore.put(
                self._store,
                name_of(file_id),
                data,
                use_multipart=not isinstance(data, bytes),
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            )

    def open(self, file_id: str) -> BufferedReader:
        return BufferedReader(_Object(self, file_id, self.size(file_id)), READ_BYTES)

    def size(self, file_id: str) -> int:
        with _translated(self.name):
            try:
                return int(obstore.head(self._store, name_of(file_id))["size"])
            except (FileNotFoundError, PermissionDeniedError):
                obstore.get(self._store, name_of(file_id))  # its answer, unlike that to HEAD, says why
                raise

    def read(self, file_id: str, start: int, end: int) -> memoryview:
        """The bytes from `start` to before `end`, which must be within the file."""
        with _translated(self.name):
            return memoryview(obstore.get_range(self._store, name_of(file_id), start=start, end=end))

    def remove(self, file_id: str) -> None:
        with _translated(self.name), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, name_of(file_id))

    def clear_drafts(self, idle_seconds: float) -> None:
        """Nothing to be seen: what was not committed is no object. Parts that a process left which was killed are removed by
        the bucket's own rule (docs/scaling.md)."""


class BucketDraft:
    """A file being written: kept in memory up to one part, from then on sent while it comes in."""

    def __init__(self, send: Callable[[str, bytes | Iterator[bytes]], None], file_id: str, tally: Tally) -> None:
        self.id = file_id
        self._send = send
        self._tally = tally
        self._gathered: list[bytes] = []
        self._upload: _Upload | None = None

    @property
    def size(self) -> int:
        return self._tally.size

    def write(self, chunk: bytes) -> None:
        self._tally.add(chunk)
        if self._upload is None:
            self._gathered.append(chunk)
            if self._tally.size > PART_BYTES:
                self._upload = _Upload(lambda chunks: self._send(self.id, chunks))
                while self._gathered:
                    self._upload.feed(self._gathered.pop(0))
        else:
            self._upload.feed(chunk)

    def commit(self) -> str:
        if self._upload is None:
            self._send(self.id, b"".join(self._gathered))
        else:
            self._upload.finish()
        self._upload, self._gathered = None, []
        return self._tally.sha256

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def discard(self) -> None:
        if self._upload is not None:
            self._upload.abort()
        self._upload, self._gathered = None, []


class _GivenUp(Exception):
    """The draft was discarded."""


class _Upload:
    """A thread that sends what it is fed. The library takes an iterator and, if that raises, has the server forget all parts."""

    def __init__(self, send: Callable[[Iterator[bytes]], None]) -> None:
        self._chunks: Queue[bytes | _GivenUp | None] = Queue(WAITING_CHUNKS)
        self._sent: Future[None] = Future()
        Thread(target=self._run, args=(send,), daemon=True).start()

    def _run(self, send: Callable[[Iterator[bytes]], None]) -> None:
        try:
            send(self._fed())
        except BaseException as error:
            self._sent.set_exception(error)
        else:
            self._sent.set_result(None)

    def _fed(self) -> Iterator[bytes]:
        while (chunk := self._chunks.get()) is not None:
            if isinstance(chunk, _GivenUp):
                raise chunk
            yield chunk

    def feed(self, chunk: bytes) -> None:
        """Wait until there is room for it. Raises what sending raised."""
        self._put(chunk)

    def finish(self) -> None:
        """Return when all is stored. Raises what sending raised."""
        self._put(None)
        self._sent.result()

    def abort(self) -> None:
        """Return when nothing is left."""
        with contextlib.suppress(_GivenUp, StoreUnavailable):
            self._put(_GivenUp())
            self._sent.result()

    def _put(self, what: bytes | _GivenUp | None) -> None:
        while not self._sent.done():
            with contextlib.suppress(Full):
                return self._chunks.put(what, timeout=LOOK_SECONDS)
        return self._sent.result()


class _Object(io.RawIOBase):
    """An object to be read from any place on. A request for each read: put a buffer around it."""

    def __init__(self, bucket: FileBucket, file_id: str, size: int) -> None:
        self._bucket = bucket
        self._file_id = file_id
        self._size = size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"negative seek position {start + offset}")
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def readall(self) -> bytes:
        """The rest. What is inherited would ask for 8 KiB at a time."""
        pieces = []
        while piece := self.read(READ_BYTES):
            pieces.append(piece)
        return b"".join(pieces)

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._size, self._place + len(view))
        if end <= self._place:
            return 0
        data = self._bucket.read(self._file_id, self._place, end)
        view[: len(data)] = data
        self._place += len(data)
        return len(data)


@contextlib.contextmanager
def _written(name: str) -> Iterator[None]:
    """For writing: what is not found is the bucket."""
    try:
        with _translated(name):
            yield
    except FileNotFoundError:
        raise StoreUnavailable(f"The files in {name} are not available: there is no such bucket.") from None


@contextlib.contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise StoreUnavailable(f"The files in {name} are not available: there is no such bucket.") from error
        raise FileNotFoundError(name) from error
    except (BaseError, OSError) as error:
        raise StoreUnavailable(f"The files in {name} are not available: {_said(error)}") from error


def _said(error: BaseException) -> str:
    """In one line, without the whole of the library's account, what is wrong."""
    text = str(error)
    told = re.search(r"<Message>([^<]+)</Message>", text)
    if told is not None:
        code: Any = re.search(r"<Code>([^<]+)</Code>", text)
        return f"{told[1].rstrip('.')} ({code[1]})" if code else told[1]
    if "169.254.169.254" in text:
        return "there are no credentials (set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
    if "error sending request" in text or "timed out" in text:
        place = re.search(r"Error performing \w+ (\w+://[^/\s]+)", text)
        return f"no answer from {place[1] if place else 'its server'}"
    return text.splitlines()[0] if text else type(error).__name__
