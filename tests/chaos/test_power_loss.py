"""The power fails: what the disk may then hold is built from a record of every write, and what was acknowledged is there.

A program is recorded while it works (recorder.c, preloaded). A crash image has all writes up to a file's last fsync, and of
later ones none, some (the last of them perhaps torn) or all. The service must start on every image.
"""

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from app.core.task import Status
from app.models import sqlite
from app.models.database import Database
from app.models.tasks import get_many
from tests.chaos.conftest import amount, broken

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("cc")
SECTOR = 512


@dataclass(frozen=True, slots=True)
class Record:
    """One change of one file: w(rite), t(runcate), s(ync) or d(elete)."""

    kind: str
    name: str
    offset: int
    data: bytes


def read_record(path: Path) -> Iterator[Record]:
    with path.open("rb") as stream:
        while head := stream.read(2):
            name = stream.read(head[1]).decode()
            offset, length = struct.unpack("=QQ", stream.read(16))
            yield Record(chr(head[0]), name, offset, stream.read(length))


@dataclass(slots=True)
class DiskFile:
    """What is certainly on the disk, and what may be."""

    durable: bytearray = field(default_factory=bytearray)
    since: list[Record] = field(default_factory=list)

    def apply(self, record: Record) -> None:
        if record.kind == "s":
            for one in self.since:
                _change(self.durable, one)
            self.since = []
        else:
            self.since.append(record)

    def after_the_cut(self, keep: str, random: Random) -> bytes:
        """The file's content, with no unsynced write, some of them, or all."""
        content = bytearray(self.durable)
        kept = {"none": [], "all": self.since}.get(keep)
        if kept is None:
            kept = [one for one in self.since if random.random() < 0.5]
            if kept and kept[-1].kind == "w" and len(kept[-1].data) > SECTOR:
                last = kept.pop()
                whole = random.randrange(len(last.data) // SECTOR + 1) * SECTOR
                kept.append(Record("w", last.name, last.offset, last.data[:whole]))
        for one in kept:
            _change(content, one)
        return bytes(content)


def _change(content: bytearray, record: Record) -> None:
    if record.kind == "t":
        del content[record.offset :]
        content.extend(bytes(record.offset - len(content)))
        return
    if len(content) < record.offset:
        content.extend(bytes(record.offset - len(content)))
    content[record.offset : record.offset + len(record.data)] = record.data


@dataclass(slots=True)
class Promise:
    """What clients know at one moment."""

    stored: set[int] = field(default_factory=set)
    completed: set[int] = field(default_factory=set)

    def hear(self, line: str) -> None:
        told = json.loads(line)
        gone = set(told.get("forgotten", ()))
        self.stored = (self.stored | ({told["stored"]} if "stored" in told else set())) - gone
        self.completed = (self.completed | ({told["completed"]} if "completed" in told else set())) - gone


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.platform != "linux" or COMPILER is None:
        pytest.skip("the recorder of writes needs Linux and a C compiler (cc): power loss was NOT tested")
    library = tmp_path_factory.mktemp("recorder") / "recorder.so"
    source = Path(__file__).parent / "recorder.c"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def record_a_day(recorder: Path, folder: Path, durability: str, rounds: int) -> list[Record]:
    """Every change of every file of the database and of what was told, in order."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(
        [
            *(sys.executable, "-m", "tests.chaos.workload", f"sqlite:///{disk}/tasks.db", str(disk / "told.jsonl")),
            *(durability, str(rounds)),
        ],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "LD_PRELOAD": str(recorder),
            "RECORDED": str(disk),
            "RECORD": str(folder / "record"),
        },
        check=True,
        timeout=600,
    )
    return list(read_record(folder / "record"))


class Outcome:
    """What was found over all images of one day."""

    def __init__(self) -> None:
        self.images = self.corrupt = self.lossy = self.most_lost = 0
        self.faults: list[str] = []

    async def look_at(
        self, folder: Path, files: dict[str, DiskFile], promise: Promise, keep: str, random: Random
    ) -> None:
        """Build an image and start on it, as the service would after the power is back."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name in ("tasks.db", "tasks.db-wal", "tasks.db-journal"):
            if name in files:
                content = files[name].after_the_cut(keep, random)
                if content or name == "tasks.db":
                    (folder / name).write_bytes(content)
        self.images += 1
        url = f"sqlite:///{folder}/tasks.db"
        database = Database(url)
        try:
            await database.open()
            async with database.read() as connection:
                found = await get_many(connection, promise.stored | promise.completed)
        except Exception as error:
            self.corrupt += 1
            self.faults.append(f"{keep}: {type(error).__name__}: {error}")
            return
        finally:
            await database.close()
        wrong = await broken(url)
        if wrong:
            self.corrupt += 1
            self.faults += wrong
        lost = promise.stored - found.keys()
        lost |= {id_ for id_ in promise.completed & found.keys() if found[id_].status is not Status.COMPLETED}
        if lost:
            self.lossy += 1
            self.most_lost = max(self.most_lost, len(lost))


async def cut_everywhere(records: list[Record], folder: Path, images: int, random: Random) -> Outcome:
    """Cut the power at random moments, with nothing, some or all of what was not synced."""
    cuts = sorted(random.choices(range(1, len(records)), k=images))
    files: dict[str, DiskFile] = {}
    promise, outcome, place = Promise(), Outcome(), 0
    for number, cut in enumerate(cuts):
        for record in records[place:cut]:
            if record.name == "told.jsonl":
                promise.hear(record.data.decode())
            elif record.kind == "d":
                files.pop(record.name, None)
            else:
                files.setdefault(record.name, DiskFile()).apply(record)
        place = cut
        await outcome.look_at(folder, files, promise, ("none", "some", "all")[number % 3], random)
    return outcome


@pytest.mark.timeout(1800)
async def test_a_power_cut_at_any_write_loses_nothing_that_was_acknowledged(
    recorder: Path, tmp_path: Path, random: Random
) -> None:
    if not sqlite.wal_is_safe():
        pytest.skip("this SQLite library cannot be trusted with a log; a rollback journal is used, which unlinks")
    records = record_a_day(recorder, tmp_path, "full", amount(40, 120))
    outcome = await cut_everywhere(records, tmp_path / "image", amount(100, 3000), random)
    print(f"{outcome.images} images of {len(records)} changes: {outcome.corrupt} corrupt, {outcome.lossy} lossy")
    assert sum(record.kind == "s" and record.name == "tasks.db" for record in records) > 3, "too few checkpoints"
    assert (outcome.corrupt, outcome.lossy) == (0, 0), "\n".join(outcome.faults[:10])


@pytest.mark.timeout(1800)
async def test_relaxed_durability_loses_the_last_tasks_and_nothing_else(
    recorder: Path, tmp_path: Path, random: Random
) -> None:
    """The recorder must be able to see a loss, or the test above proves nothing; and relaxed must not mean corrupt."""
    if not sqlite.wal_is_safe():
        pytest.skip("this SQLite library cannot be trusted with a log; a rollback journal is used, which unlinks")
    records = record_a_day(recorder, tmp_path, "relaxed", amount(30, 120))
    outcome = await cut_everywhere(records, tmp_path / "image", amount(20, 1000), random)
    print(
        f"{outcome.images} images: {outcome.corrupt} corrupt, {outcome.lossy} lossy, at most {outcome.most_lost} lost"
    )
    assert outcome.corrupt == 0, "\n".join(outcome.faults[:10])
    assert outcome.lossy > 0
