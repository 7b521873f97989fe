"""What may be done with files: receive, open, list, delete, keep for a task, collect what has expired."""

import asyncio
import contextlib
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import IO, Self

from app.core.audit import Action, Actor, Deed
from app.core.errors import Conflict, NotFound, StoreUnavailable
from app.core.events import EventBus, FilesRemoved, FileStored
from app.core.file import Role, StoredFile, content_type_of, label_of
from app.core.settings import Settings
from app.models import files as rows
from app.models.database import Database, retried
from app.services.audit import note
from app.services.file_address import open_file_store
from app.services.file_store import CHUNK_BYTES, Draft


class FileService:
    """The files of one service: rows in the database, bytes in the file store."""

    def __init__(self, database: Database, bus: EventBus, settings: Settings) -> None:
        """Raises SettingsError."""
        self._database = database
        self._bus = bus
        self._settings = settings
        self._store = open_file_store(settings.files_place)
        self._clock = database.clock()

    async def ensure_usable(self) -> None:
        """Raise StoreError with one clear line if files cannot be kept where they are to be."""
        await asyncio.to_thread(self._store.ensure_usable)

    async def receive(self, tenant: str = "") -> "Reception":
        """Begin to take in a file of unknown length; use the answer as an `async with`. Raises StoreUnavailable."""
        return Reception(self, await asyncio.to_thread(self._store.create, self._settings.max_upload_bytes), tenant)

    async def store(self, draft: Draft, name: str | None, content_type: str | None, tenant: str = "") -> StoredFile:
        """Make a draft a file. Returns when bytes and row are on disk."""
        sha256 = await asyncio.to_thread(draft.commit)
        now = self._clock()
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)  # as it will be read again
        expires_at = now + timedelta(seconds=self._settings.retention_files_seconds)
        what = label_of(name), draft.size, content_type_of(content_type), sha256
        file = StoredFile(draft.id, *what, now, expires_at, tenant)
        try:
            async with self._database.write() as connection:
                await rows.add(connection, file)
        except BaseException:
            await self._remove_unless_stored(draft.id)
            raise
        self._bus.publish(FileStored(file.id, file.size))
        return file

    async def _remove_unless_stored(self, file_id: str) -> None:
        """A commit that failed may have been carried out all the same: then the bytes belong to a row, which will expire."""
        with contextlib.suppress(StoreUnavailable):  # nobody can say now: what nobody needs stays on disk
            async with self._database.read() as connection:
                stored = await rows.get(connection, file_id, self._clock())
            if stored is None:
                await asyncio.to_thread(self._store.remove, file_id)

    async def get(self, file_id: str, tenant: str = "") -> StoredFile:
        """What is known about the file. Raises NotFound, for what is not that tenant's too; without a tenant all are seen."""
        async with self._database.read() as connection:
            file = await rows.get(connection, file_id, self._clock(), tenant=tenant)
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

    async def delete(self, file_id: str, tenant: str = "", by: Actor | None = None) -> None:
        """Delete a file that no task keeps. Raises NotFound, Conflict."""
        now = self._clock()
        async with self._database.write() as connection:
            file = await rows.get(connection, file_id, now, tenant=tenant, for_change=True)
            if file is None:
                raise NotFound("file", file_id)
            keepers = await rows.keepers(connection, file_id)
            if keepers:
                raise Conflict(f"Task {keepers[0]} keeps file {file_id}; it is deleted with its tasks.")
            await rows.expire(connection, file_id, now)
            about = {name: getattr(file, name) for name in ("name", "size", "content_type", "sha256")}
            await note(connection, by, now, Deed(Action.FILE_DELETE, f"file {file_id}", about))
        await self.collect()

    @retried
    async def keep(self, task_id: int, lease: int, file: StoredFile, *, temporary: bool) -> bool:
        """Make a file that an attempt has written one of its task's; returns after the commit. False, and the bytes are
        gone, when the lease is lost."""
        role = Role.TEMPORARY if temporary else Role.OUTPUT
        file = replace(file, created_at=self._clock(), expires_at=None)  # by the store's clock, not the runner's
        async with self._database.write() as connection:
            kept = await rows.add_saved(connection, task_id, lease, file, role)
        if kept:
            self._bus.publish(FileStored(file.id, file.size, task_id))
        else:
            await asyncio.to_thread(self._store.remove, file.id)
        return kept

    async def collect(self, limit: int = 500) -> bool:
        """Delete files whose time is over: first they are given up, so that no task can keep them any more, then the bytes
        go, then the rows, so that a crash in between leaves something to come back to. True if there may be more."""
        now = self._clock()
        async with self._database.read() as connection:
            if not await rows.any_expired(connection, now):
                return False
        async with self._database.write() as connection:
            ids = await rows.doom(connection, now, limit)
        await asyncio.to_thread(self._remove_all, ids)
        async with self._database.write(durable=False) as connection:
            await rows.remove_doomed(connection, ids)
        self._bus.publish(FilesRemoved(len(ids)))
        return len(ids) == limit

    async def clear_drafts(self) -> bool:
        """Remove what uploads and attempts left half written when they died. All of it at once: False, there is no more."""
        await asyncio.to_thread(self._store.clear_drafts, self._settings.retention_files_seconds)
        return False

    def _remove_all(self, ids: list[str]) -> None:
        for file_id in ids:
            self._store.remove(file_id)


class Reception:
    """A file that is coming in. Leaving it without `finish` leaves nothing behind."""

    def __init__(self, service: FileService, draft: Draft, tenant: str) -> None:
        self._service = service
        self._tenant = tenant
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
        return await self._service.store(self._draft, name, content_type, self._tenant)

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
