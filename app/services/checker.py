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
from app.services.file_store import FileStore

SOUND = "the file is sound, and no row refers to one that is missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise, and what breaks it: ids, or sentences. Nothing means that it is kept."""

    name: str
    promise: str
    noun: str
    broken: list[str]


class Checker:
    """Checks one database. `final`: all work is said to be done."""

    def __init__(
        self, database: Database, *, files: Path | None = None, acknowledged: Path | None = None, final: bool = False
    ) -> None:
        self._database = database
        self._files = files
        self._acknowledged = acknowledged
        self._final = final

    async def findings(self) -> AsyncIterator[Finding]:
        """Every check that applies, one after the other. Raises StoreError for what is no database of ours."""
        if not self._database.path.exists():
            raise StoreError(f"There is no database at {self._database.path}.")
        try:
            async for finding in self._asked():
                yield finding
        except StoreDamaged as error:
            yield Finding("damage", SOUND, "", [str(error)])

    async def _asked(self) -> AsyncIterator[Finding]:
        async with self._database.read() as connection:
            version = await rows.schema_version(connection)
            if not rows.is_current(version):
                raise StoreError(
                    f"{self._database.path} has schema version {version}; start the API or a worker once to bring it up"
                    " to date, or check it with the program that made it."
                )
            damage = await rows.damage(connection)
            yield Finding("damage", SOUND, "", damage)
            if damage:
                return  # what the other questions would answer cannot be trusted
            for check in rows.CHECKS:
                if self._final or not check.final:
                    yield Finding(check.name, check.promise, check.noun, await rows.breaking(connection, check))
            if self._acknowledged is not None:
                told = await asyncio.to_thread(_told, self._acknowledged)
                missing = [str(id_) for id_ in await rows.missing_tasks(connection, set(told))]
                yield Finding("acknowledged", "every acknowledged task is there", "task", missing)
                yield Finding(
                    "once", "every idempotency key was answered with one task", "key", _twice(self._acknowledged)
                )
            if self._files is not None:
                stored = await rows.stored_files(connection)
                wrong = await asyncio.to_thread(lambda: list(_wrong_files(FileStore(self._files or Path()), stored)))
                yield Finding("files", "every stored file is on disk, whole", "file", wrong)


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
