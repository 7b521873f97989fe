"""What may be done with files: receive, open, list, delete, keep for a task, collect what has expired."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import IO, Self

from app.core.errors import Conflict, NotFound
from app.core.events import EventBus, FilesRemoved, FileStored
from app.core.file import Role, StoredFile, content_type_of, label_of
from app.core.settings import Settings
from app.models import files as rows
from app.models.database import Database
from app.services.file_store import CHUNK_BYTES, Draft, FileStore


class FileService:
    """The files of one service: rows in the database, bytes in the file store."""

    def __init__(self, database: Database, bus: EventBus, settings: Settings) -> None:
        self._database = database
        self._bus = bus
        self._settings = settings
        self._store = FileStore(settings.files_dir)
        self._clock = database.clock()

    async def receive(self) -> "Reception":
        """Begin to take in a file of unknown length; use the answer as an `async with`. Raises StoreUnavailable."""
        return Reception(self, await asyncio.to_thread(self._store.create, self._settings.max_upload_bytes))

    async def store(self, draft: Draft, name: str | None, content_type: str | None) -> StoredFile:
        """Make a draft a file. Returns when bytes and row are on disk."""
        sha256 = await asyncio.to_thread(draft.commit)
        now = self._clock()
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)  # as it will be read again
        expires_at = now + timedelta(seconds=self._settings.retention_files_seconds)
        file = StoredFile(draft.id, label_of(name), draft.size, content_type_of(content_type), sha256, now, expires_at)
        try:
            async with self._database.write() as connection:
                await rows.add(connection, file)
        except BaseException:
            await asyncio.to_thread(self._store.remove, draft.id)
            raise
        self._bus.publish(FileStored(file.id, file.size))
        return file

    async def get(self, file_id: str) -> StoredFile:
        """What is known about the file. Raises NotFound."""
        async with self._database.read() as connection:
            file = await rows.get(connection, file_id, self._clock())
        if file is None:
            raise NotFound("file", file_id)
        return file

    async def open(self, file_id: str) -> IO[bytes]:
        """Its bytes, to be read in a thread and closed. Raises NotFound if they are gone."""
        try:
            return await asyncio.to_thread(self._store.open, file_id)
        except FileNotFoundError:
            raise NotFound("file", file_id) from None

    async def of_task(self, task_id: int) -> list[tuple[StoredFile, Role]]:
        """The files a task keeps, oldest first."""
        async with self._database.read() as connection:
            return await rows.of_task(connection, task_id)

    async def delete(self, file_id: str) -> None:
        """Delete a file that no task keeps. Raises NotFound, Conflict."""
        now = self._clock()
        async with self._database.write() as connection:
            if await rows.get(connection, file_id, now) is None:
                raise NotFound("file", file_id)
            keepers = await rows.keepers(connection, file_id)
            if keepers:
                raise Conflict(f"Task {keepers[0]} keeps file {file_id}; it is deleted with its tasks.")
            await rows.expire(connection, file_id, now)
        await self.collect()

    async def keep(self, task_id: int, lease: int, file: StoredFile, *, temporary: bool) -> bool:
        """Make a file that an attempt has written one of its task's; returns after the commit. False, and the bytes are
        gone, when the lease is lost."""
        role = Role.TEMPORARY if temporary else Role.OUTPUT
        async with self._database.write() as connection:
            kept = await rows.add_saved(connection, task_id, lease, replace(file, expires_at=None), role)
        if kept:
            self._bus.publish(FileStored(file.id, file.size, task_id))
        else:
            await asyncio.to_thread(self._store.remove, file.id)
        return kept

    async def collect(self, limit: int = 500) -> bool:
        """Delete files whose time is over: first the bytes, then the rows, so that a crash between them leaves something
        to come back to. True if there may be more."""
        now = self._clock()
        async with self._database.read() as connection:
            ids = await rows.expired(connection, now, limit)
        if not ids:
            return False
        await asyncio.to_thread(self._remove_all, ids)
        async with self._database.write(durable=False) as connection:
            await rows.remove_expired(connection, ids, now)
        self._bus.publish(FilesRemoved(len(ids)))
        return len(ids) == limit

    async def clear_drafts(self) -> None:
        """Remove what uploads and attempts left half written when they died."""
        await asyncio.to_thread(self._store.clear_drafts, self._settings.retention_files_seconds)

    def _remove_all(self, ids: list[str]) -> None:
        for file_id in ids:
            self._store.remove(file_id)


class Reception:
    """A file that is coming in. Leaving it without `finish` leaves nothing behind."""

    def __init__(self, service: FileService, draft: Draft) -> None:
        self._service = service
        self._draft = draft
        self._gathered: list[bytes] = []
        self._size = 0

    async def write(self, chunk: bytes) -> None:
        """Append. Raises TooLarge, StoreUnavailable."""
        self._gathered.append(chunk)
        self._size += len(chunk)
        if self._size >= CHUNK_BYTES:
            await self._flush()

    async def finish(self, name: str | None, content_type: str | None) -> StoredFile:
        """Store it. Returns when it is on disk."""
        await self._flush()
        return await self._service.store(self._draft, name, content_type)

    async def _flush(self) -> None:
        data, self._gathered, self._size = b"".join(self._gathered), [], 0
        if data:
            await asyncio.to_thread(self._draft.write, data)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._draft.discard)
