"""What benchmarks share: numbers of one run are kept with its date, machine and settings, and shown as tables."""

import json
import os
import platform
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from rich import table as rich_table
from rich.console import Console

RESULTS = Path(__file__).parent / "results"
LOAD_BEFORE = os.getloadavg()[0]
"""How busy the machine was when this program began."""


@dataclass(frozen=True)
class Measurement:
    """One run of one benchmark. `data` is what it found, as JSON; its module knows how to show it."""

    name: str
    taken_at: str
    machine: str
    quick: bool
    versions: dict[str, str]
    settings: list[str]
    data: Any

    @property
    def about(self) -> str:
        """When, where, and with which settings and versions."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        rough = " **A quick run: rough.**" if self.quick else ""
        return f"Taken {self.taken_at} on {self.machine}.{rough} {'; '.join(self.settings)}. {versions}."


@dataclass(frozen=True)
class Table:
    """A table of one measurement, for a terminal and for a document; `name` is what the document's markers say."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        lines = ["| " + " | ".join(row) + " |" for row in (self.columns, *self.rows)]
        return "\n".join([lines[0], "|" + "---|" * len(self.columns), *lines[1:]])


def show(measurement: Measurement, tables: Iterable[Table]) -> None:
    """On the terminal."""
    console = Console(width=160)
    for table in tables:
        shown = rich_table.Table(*table.columns)
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    console.print(measurement.about, markup=False, highlight=False)


def taken(name: str, data: Any, *, quick: bool, versions: Mapping[str, str], settings: Iterable[str]) -> Measurement:
    """A measurement that ends now, on this machine."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Measurement(name, now, machine(), quick, dict(sorted(versions.items())), list(settings), data)


def save(measurement: Measurement, folder: Path | None) -> None:
    """Keep it in `folder`. None is where the documentation takes its figures from; a quick run is not kept there."""
    if folder is None and measurement.quick:
        print("A quick run is not kept; name a folder with --results if it shall be.")
        return
    folder = folder or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{measurement.name}.json"
    path.write_text(json.dumps(asdict(measurement), indent=1) + "\n")
    print(f"kept in {path}")


def load(name: str, folder: Path = RESULTS) -> Measurement | None:
    """The last one that was kept, or None."""
    path = folder / f"{name}.json"
    return Measurement(**json.loads(path.read_text())) if path.exists() else None


def machine() -> str:
    """This machine in one line: what it is, how busy it is, and how often a second its disk takes a write for good."""
    names = [line.split(":", 1)[1].strip() for line in lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next(int(line.split()[1]) for line in lines("/proc/meminfo") if line.startswith("MemTotal"))
    return (
        f"{os.cpu_count()} cores ({names[0] if names else platform.machine()}), {memory / 2**20:.0f} GiB, "
        f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}, "
        f"load {LOAD_BEFORE:.1f} before it began, {flushes_a_second():,.0f} flushes/s"
    )


def lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def flushes_a_second() -> float:
    """How often a second 4 KiB can be appended and flushed, the median of five probes of twenty."""
    rates = []
    with NamedTemporaryFile() as file:
        for _ in range(5):
            began = time.perf_counter()
            for _ in range(20):
                os.write(file.fileno(), b"x" * 4096)
                os.fdatasync(file.fileno())
            rates.append(20 / (time.perf_counter() - began))
    return statistics.median(rates)


def versions_of(*packages: str) -> dict[str, str]:
    """The versions of packages installed here."""
    return {name: version(name) for name in packages}


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """The median, and the least and the most where there are several."""
    middle = format(statistics.median(values), form)
    return middle if len(values) == 1 else f"{middle} ({format(min(values), form)} to {format(max(values), form)})"
