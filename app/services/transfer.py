"""Moves all that a database holds into another one, of the same kind or the other, and proves that nothing is missing.

The target is made equal to the source: what is there already and the same stays, so a transfer that was broken off goes on
where it was, and one that was begun while the service worked is finished in less time. Until all is there and compared no
program starts on the target.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from app.core.digest import Digest
from app.core.errors import StoreError, TooLarge
from app.models import checks, workers
from app.models import transfer as rows
from app.models.database import Connection, Database
from app.models.transfer import TABLES, Rows, Table
from app.services.checker import Checker, CheckResult
from app.services.file_address import open_file_store
from app.services.file_store import CHUNK_BYTES, FileStore

FILES_AT_ONCE = 8

Progress = Callable[[str, int, int], None]
"""Hears what is being done, how many rows of it are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class TableResult:
    """What a table holds on either side."""

    name: str
    source: Digest
    target: Digest

    @property
    def is_same(self) -> bool:
        return self.source == self.target


@dataclass(frozen=True, slots=True)
class TransferResult:
    """What came of a transfer. `broken` are promises that the target does not keep; `broken_before` those that the source
    does not keep, by name, with what breaks them."""

    tables: list[TableResult]
    kept: int
    broken: list[CheckResult]
    broken_before: dict[str, set[str]]

    @property
    def is_done(self) -> bool:
        """Whether the target is what the source was, so that programs may start on it."""
        return all(table.is_same for table in self.tables) and all(self.was_broken(one) for one in self.broken)

    def was_broken(self, finding: CheckResult) -> bool:
        """Whether the source does not keep this promise either, for the same rows."""
        return _meant(finding) <= self.broken_before.get(finding.name, set())


def _meant(finding: CheckResult) -> set[str]:
    """What breaks a promise, without what is said of it: a file that was changed is not copied, so then it is missing."""
    return {one.split(" (", 1)[0] for one in finding.broken}


class FileCopier:
    """Copies the bytes of files from one place to another, some at a time."""

    def __init__(self, source: FileStore, target: FileStore) -> None:
        self._source = source
        self._target = target
        self._turns = asyncio.Semaphore(FILES_AT_ONCE)

    def ensure_usable(self) -> None:
        """Raise StoreError if one of the places cannot be used. Blocks."""
        self._source.ensure_usable()
        self._target.ensure_usable()

    async def copy(self, file_id: str, size: int, sha256: str) -> None:
        """Copy one, if it is whole and not there yet. What is missing or changed is left for the checker to tell."""
        async with self._turns:
            await asyncio.to_thread(self._copy, file_id, size, sha256)

    def _copy(self, file_id: str, size: int, sha256: str) -> None:
        with suppress(FileNotFoundError):
            if self._target.size(file_id) == size:
                return
        with (
            suppress(FileNotFoundError, TooLarge),
            self._source.open(file_id) as stream,
            self._target.create(size, file_id) as draft,
        ):
            while chunk := stream.read(CHUNK_BYTES):
                draft.write(chunk)
            if draft.commit() != sha256:
                self._target.remove(file_id)

    async def remove(self, file_ids: Collection[str]) -> None:
        """Delete what was copied of files that the source has no more."""
        for file_id in file_ids:
            await asyncio.to_thread(self._target.remove, file_id)


class Transfer:
    """One source, one target. Neither may be open in this process yet. `silence`: how long a worker is taken to live that
    says nothing."""

    def __init__(
        self,
        source: Database,
        target: Database,
        silence: timedelta,
        progress: Progress,
        files: tuple[str, str] | None = None,
    ) -> None:
        """`files`: the places from which and to which their bytes are copied; None where they stay. Raises SettingsError."""
        self._source = source
        self._target = target
        self._silence = silence
        self._progress = progress
        self._places = files or ("", "")
        self._file_copier = FileCopier(*map(open_file_store, files)) if files else None

    async def copy_ahead(self) -> None:
        """Copy what the source holds at this moment, while it works on. Raises StoreError."""
        await self._prepare(at_rest=False)
        await self._copy()

    async def move(self) -> TransferResult:
        """Copy what is not there yet, compare, and open the target if it is as it should be. Raises StoreError."""
        await self._prepare(at_rest=True)
        await self._copy()
        result = TransferResult(await self._compared(), *await self._checked())
        await self._source.close()
        await self._ensure_left_alone()
        if result.is_done:
            async with self._target.write() as connection:
                await rows.unseal(connection)
        return result

    # Whether it may be done.

    async def _prepare(self, *, at_rest: bool) -> None:
        if self._source.name == self._target.name:
            raise StoreError(f"{self._source.name} cannot be moved to where it is.")
        await self._source.find()
        if at_rest:
            await self._ensure_left_alone()
        await self._ensure_current()
        if at_rest:
            await self._ensure_no_workers()
        if self._file_copier is not None:
            await asyncio.to_thread(self._file_copier.ensure_usable)
        await self._target.ensure_alone()
        await self._seal()

    async def _ensure_left_alone(self) -> None:
        try:
            await self._source.ensure_alone()
        except StoreError as error:
            raise StoreError(f"{error} {HELP}") from None

    async def _ensure_current(self) -> None:
        async with self._source.read() as connection:
            version = await checks.schema_version(connection)
        if version == "none":
            raise StoreError(f"{self._source.name} is no database of this service.")
        if rows.is_sealed(version):
            raise StoreError(f"{self._source.name} holds a part of another one: a transfer into it is not finished.")
        if not checks.is_current(version):
            raise StoreError(
                f"{self._source.name} has schema version {version}, and this program another. Start the API or a worker of"
                " this version on it once, or move it with the program that made it."
            )

    async def _ensure_no_workers(self) -> None:
        async with self._source.read() as connection:
            alive = await workers.listed(connection, self._source.clock()(), self._silence)
        if alive:
            names = ", ".join(f"{worker.name} on {worker.host} (process {worker.pid})" for worker in alive[:3])
            seconds = self._silence.total_seconds()
            raise StoreError(
                f"Workers were heard of in {self._source.name} within the last {seconds:g} s: {names}"
                f"{', ...' if len(alive) > 3 else ''}. {HELP}"
            )

    async def _seal(self) -> None:
        """See to it that the target has its tables, and that nobody but us uses them from now on."""
        version = await self._version_of_target()
        if version is not None and rows.is_sealed_for(version, self._source.name):
            return
        if version is not None and rows.is_sealed(version):
            raise StoreError(
                f"{self._target.name} holds a part of another database, or one copied by another version of this program."
                " Delete it and make it anew, or take the source it was begun with."
            )
        await self._target.open()
        async with self._target.write() as connection:
            if await rows.has_tasks(connection):
                raise StoreError(f"{self._target.name} has tasks or files already; nothing is overwritten.")
            await rows.seal(connection, self._source.name)

    async def _version_of_target(self) -> str | None:
        """None where there is nothing yet."""
        if self._target.path is not None and not self._target.path.exists():
            return None
        await self._target.find()
        async with self._target.read() as connection:
            return await checks.schema_version(connection)

    # Copying.

    async def _copy(self) -> None:
        async with self._source.snapshot() as source:
            # First all that is not right, then all that is missing: a unique key may have gone from one task to another.
            for table in TABLES:
                await self._remove_stale(source, table)
            for table in TABLES:
                await self._add_missing(source, table)
            if self._file_copier is not None:
                await self._copy_files(source, self._file_copier)
            async with self._target.write() as target:
                await rows.copy_last_ids(source, target)
        async with self._target.write() as target:
            await rows.refresh_statistics(target)

    async def _remove_stale(self, source: Connection, table: Table) -> None:
        async with self._target.read() as target:
            async for page in self._pages(f"look at {table.name}", target, table):
                keys = [rows.key_of(table, row) for row in page]
                wanted = {rows.key_of(table, row): row for row in await rows.with_keys(source, table, keys)}
                stale = [key for key, row in zip(keys, page, strict=True) if wanted.get(key) != row]
                if stale:
                    async with self._target.write(durable=False) as connection:
                        await rows.remove(connection, table, stale)
                if self._file_copier is not None and table.name == "files":
                    await self._file_copier.remove([str(key[0]) for key in stale if key not in wanted])

    async def _add_missing(self, source: Connection, table: Table) -> None:
        async with self._target.read() as target:
            is_empty = await rows.count(target, table) == 0
        async for page in self._pages(f"copy {table.name}", source, table):
            missing = page if is_empty else await self._missing(table, page)
            if missing:
                async with self._target.write(durable=False) as target:
                    await rows.add(target, table, missing)

    async def _missing(self, table: Table, page: Rows) -> Rows:
        async with self._target.read() as target:
            there = await rows.with_keys(target, table, [rows.key_of(table, row) for row in page])
        keys = {rows.key_of(table, row) for row in there}
        return [row for row in page if rows.key_of(table, row) not in keys]

    async def _pages(self, what: str, connection: Connection, table: Table) -> AsyncIterator[Rows]:
        """All rows of a table, page by page."""
        total, done, last = await rows.count(connection, table), 0, None
        self._progress(what, 0, total)
        while page := await rows.page(connection, table, last):
            yield page
            done += len(page)
            self._progress(what, done, max(done, total))
            last = rows.key_of(table, page[-1])

    async def _copy_files(self, source: Connection, copier: FileCopier) -> None:
        (files,) = [table for table in TABLES if table.name == "files"]
        async for page in self._pages("copy the bytes of files", source, files):
            await asyncio.gather(*(copier.copy(row.id, row.size, row.sha256) for row in page))

    # Comparing.

    async def _compared(self) -> list[TableResult]:
        return [
            TableResult(table.name, await self._digest(self._source, table), await self._digest(self._target, table))
            for table in TABLES
        ]

    async def _digest(self, database: Database, table: Table) -> Digest:
        digest = Digest()
        side = "source" if database is self._source else "target"
        async with database.read() as connection:
            async for page in self._pages(f"compare {table.name} ({side})", connection, table):
                digest = digest.plus(map(tuple, page))
        return digest

    async def _checked(self) -> tuple[int, list[CheckResult], dict[str, set[str]]]:
        """How many promises the target keeps, which it breaks, and which the source breaks."""
        findings = await self._findings(self._target, self._places[1])
        broken = [finding for finding in findings if finding.broken]
        before = await self._findings(self._source, self._places[0])
        return len(findings) - len(broken), broken, {finding.name: _meant(finding) for finding in before}

    async def _findings(self, database: Database, files: str) -> list[CheckResult]:
        side = "source" if database is self._source else "target"
        self._progress(f"check the {side}", 0, 1)
        findings = [finding async for finding in Checker(database, files=files or None).findings()]
        self._progress(f"check the {side}", 1, 1)
        return findings


HELP = (
    "What still changes cannot be moved: stop the API and every worker (SIGTERM; running tasks may finish), or copy ahead"
    " while they work, with --ahead, and stop them for the rest."
)
