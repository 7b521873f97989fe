"""Asks whether a store keeps its promises: every invariant, the files on disk, and what clients were told. Changes nothing."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import StoreDamaged, StoreError
from app.models import checks as rows
from app.models.database import Database
from app.models.dialects import damage
from app.services.file_address import open_file_store
from app.services.file_store import FileStore

SOUND = "the store is sound, and no row refers to one that is missing"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One promise, and what breaks it: ids, or sentences. Nothing means that it is kept."""

    name: str
    promise: str
    noun: str
    broken: list[str]

    def shown(self, most: int) -> str:
        """The promise, and up to `most` of what breaks it."""
        listed = ", ".join(self.broken[:most]) + (", ..." if len(self.broken) > most else "")
        if not self.noun:
            return f"{self.promise}: {listed}"
        nouns = f"{self.noun}{'s' if len(self.broken) > 1 else ''}"
        return f"{self.promise}: {nouns} {listed}" + (
            f" ({len(self.broken)} in all)" if len(self.broken) > most else ""
        )


class Checker:
    """Checks one database. `final`: all work is said to be done."""

    def __init__(
        self, database: Database, *, files: str | None = None, acknowledged: Path | None = None, final: bool = False
    ) -> None:
        self._database = database
        self._files = files
        self._acknowledged = acknowledged
        self._final = final

    async def findings(self) -> AsyncIterator[CheckResult]:
        """Every check that applies, one after the other. Raises StoreError for what is no database of ours."""
        await self._database.find()
        try:
            async for finding in self._asked():
                yield finding
        except StoreDamaged as error:
            yield CheckResult("damage", SOUND, "", [str(error)])

    async def soundness(self) -> CheckResult:
        """Whether the file is sound, whatever version its schema has. Raises StoreDamaged for what cannot even be read."""
        async with self._database.read() as connection:
            return CheckResult("damage", SOUND, "", await damage(connection))

    async def _asked(self) -> AsyncIterator[CheckResult]:
        async with self._database.read() as connection:
            version = await rows.schema_version(connection)
            if not rows.is_current(version):
                raise StoreError(
                    f"{self._database.name} has schema version {version}; start the API or a worker once to bring it up"
                    " to date, or check it with the program that made it."
                )
            soundness = await self.soundness()
            yield soundness
            if soundness.broken:
                return  # what the other questions would answer cannot be trusted
            yield CheckResult("text", "every row can be read", "row", await rows.unreadable(connection))
            for check in rows.CHECKS:
                if self._final or not check.final:
                    yield CheckResult(check.name, check.promise, check.noun, await rows.breaking(connection, check))
            if self._acknowledged is not None:
                told = await asyncio.to_thread(_told, self._acknowledged)
                missing = [str(id_) for id_ in await rows.missing_tasks(connection, set(told))]
                yield CheckResult("acknowledged", "every acknowledged task is there", "task", missing)
                yield CheckResult(
                    "once", "every idempotency key was answered with one task", "key", _twice(self._acknowledged)
                )
            if self._files is not None:
                stored = await rows.stored_files(connection)
                store = open_file_store(self._files)
                unsound = await asyncio.to_thread(lambda: list(_wrong_files(store, stored)))
                yield CheckResult("files", "every stored file is in its place, whole", "file", unsound)


def _lines(path: Path) -> Iterator[dict[str, object]]:
    try:
        with path.open() as stream:
            for line in stream:
                yield json.loads(line)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read as JSON lines with an `id`: {error}") from error


def _told(path: Path) -> list[int]:
    return [int(str(line["id"])) for line in _lines(path)]


def _twice(path: Path) -> list[str]:
    """Keys for which clients were given different tasks."""
    ids: dict[object, object] = {}
    broken = []
    for line in _lines(path):
        key = line.get("key")
        if key is not None and ids.setdefault(key, line["id"]) != line["id"]:
            broken.append(str(key))
    return broken


def _wrong_files(store: FileStore, stored: list[tuple[str, int, str]]) -> Iterator[str]:
    for file_id, size, sha256 in stored:
        try:
            with store.open(file_id) as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
                length = stream.tell()
        except FileNotFoundError:
            yield f"{file_id} (missing)"
            continue
        if (length, digest) != (size, sha256):
            yield f"{file_id} (changed)"
