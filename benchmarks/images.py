"""Thumbnails through the queue against the same work in a plain loop: medians of interleaved rounds, and ratios.

    python benchmarks/images.py            about three minutes
    python benchmarks/images.py --quick    one minute, rougher

Each way makes a thumbnail of 256 pixels in one process: `plain` is a loop of open, thumbnail and save with Pillow alone,
`alone` our executor without the service, `queue` the tasks of one worker with one runner, synchronous=FULL.
"""

import argparse
import base64
import io
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
from PIL import Image, ImageChops
from rich.console import Console
from rich.table import Table

from app.core.settings import SHIPPED_EXECUTORS
from app.services.executors import Context, RecordedReports
from app.workers.executors.image_processing import process_image
from app.workers.image.payload import ImageProcessing
from benchmarks.house import ROOT, House, cpu_seconds, open_house, tree

MODULE = "app.workers.executors.image_processing"
FILE = "0" * 32
THUMBNAIL = {"operation": "thumbnail", "width": 256, "height": 256}
# What, width, height, how many in a round, how they are handed over: the small one fits into a payload.
KINDS: tuple[tuple[str, int, int, int, str], ...] = (
    ("0.5 megapixels in the payload", 800, 600, 100, "image_base64"),
    ("12 megapixels, uploaded", 4000, 3000, 60, "file_id"),
)


def photograph(width: int, height: int) -> bytes:
    """Gradients and noise as a JPEG, about as large as one from a camera."""
    noise = Image.effect_noise((width // 4, height // 4), 60).resize((width, height))
    down, round_ = (make("L").resize((width, height)) for make in (Image.linear_gradient, Image.radial_gradient))
    bands = [ImageChops.add(band, noise, scale=2) for band in (down, round_, ImageChops.invert(down))]
    file = io.BytesIO()
    Image.merge("RGB", bands).save(file, "JPEG", quality=85)
    return file.getvalue()


def plain(data: bytes, folder: Path, count: int) -> None:
    for number in range(count):
        with Image.open(io.BytesIO(data)) as picture:
            picture.thumbnail((256, 256), Image.Resampling.LANCZOS)
            picture.save(folder / f"{number}.jpg", "JPEG", quality=85)


def alone(data: bytes, folder: Path, count: int) -> None:
    for number in range(count):
        reports = RecordedReports({FILE: data})
        payload = ImageProcessing.model_validate({"file_id": FILE, "operations": [THUMBNAIL]})
        result = process_image(payload, Context(reports=reports))
        (folder / f"{number}.jpg").write_bytes(reports.files[result["file_id"]])


def by_itself(way: str, source: Path, count: int) -> tuple[float, float]:
    """Seconds on the clock and of the processor for one picture, in a process without a service."""
    command = [sys.executable, __file__, "--way", way, "--source", str(source), "--count", str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, used = json.loads(done.stdout)
    return seconds / count, used / count


def run_by_itself(way: str, source: Path, count: int) -> None:
    data, make = source.read_bytes(), {"plain": plain, "alone": alone}[way]
    made = source.with_suffix(f".{way}")
    made.mkdir(exist_ok=True)
    make(data, made, 3)  # the first ones load Pillow
    began, used = time.perf_counter(), time.process_time()
    make(data, made, count)
    print(json.dumps([time.perf_counter() - began, time.process_time() - used]))


class Queue:
    """A service with one worker that has one runner."""

    def __init__(self, house: House) -> None:
        modules = "benchmarks.executors" if MODULE in SHIPPED_EXECUTORS else f"benchmarks.executors {MODULE}"
        self.api, address = house.api(EXECUTOR_MODULES=modules)
        # One client for all: opening one takes longer than a small thumbnail.
        self.client = httpx.Client(base_url=address, timeout=60)
        self.worker = house.worker(address, "--processes", "1", EXECUTOR_MODULES=modules)

    def payload(self, data: bytes, field: str) -> dict[str, Any]:
        if field == "image_base64":
            given = base64.b64encode(data).decode()
        else:
            answer = self.client.post("/files", files={"file": ("photo.jpg", data, "image/jpeg")})
            answer.raise_for_status()
            given = answer.json()["id"]
        return {field: given, "operations": [THUMBNAIL]}

    def drain(self, payload: dict[str, Any], count: int) -> tuple[float, float]:
        """Seconds on the clock and of all processors for one picture, from the first tenth on."""
        before = self._completed()
        tasks = [{"task_type": "image_processing", "payload": payload}] * count
        self.client.post("/tasks/bulk", json={"tasks": tasks}).raise_for_status()
        while self._completed() < before + count // 10:
            time.sleep(0.02)
        pids = [*tree(self.worker.pid), *tree(self.api.pid)]
        at, used, began = self._completed(), cpu_seconds(pids), time.perf_counter()
        while (now := self._completed()) < before + count:
            time.sleep(0.05)
        done = now - at
        return (time.perf_counter() - began) / done, (cpu_seconds(pids) - used) / done

    def _completed(self) -> int:
        stats = self.client.get("/stats").json()
        if stats["failed"]:
            raise RuntimeError("a task failed")
        return int(stats["completed"])


def measure(queue: Queue, folder: Path, kind: tuple[str, int, int, int, str], rounds: int) -> list[list[str]]:
    what, width, height, count, field = kind
    source = folder / f"{width}.jpg"
    source.write_bytes(photograph(width, height))
    payload = queue.payload(source.read_bytes(), field)
    queue.drain(payload, 20)
    taken: dict[str, list[tuple[float, float]]] = {"plain": [], "alone": [], "queue": []}
    for _ in range(rounds):
        taken["plain"].append(by_itself("plain", source, count))
        taken["queue"].append(queue.drain(payload, count))
        taken["alone"].append(by_itself("alone", source, count))
    rows = []
    for way, pairs in taken.items():
        seconds, used = (statistics.median(column) for column in zip(*pairs, strict=True))
        # Pair by pair, which holds when the machine's speed drifts.
        ratio = statistics.median(mine[0] / base[0] for mine, base in zip(pairs, taken["plain"], strict=True))
        rows.append(
            [what, way, f"{1 / seconds:,.1f}/s", f"{seconds * 1000:.1f} ms", f"{used * 1000:.1f} ms", f"{ratio:.2f}"]
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--way", choices=("plain", "alone"), help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        run_by_itself(options.way, options.source, options.count)
        return
    console = Console(width=120)
    table = Table("picture", "way", "thumbnails", "each", "processor", "of plain", title="Thumbnails, one process")
    with open_house() as house:
        queue = Queue(house)
        for kind in KINDS:
            console.print(f"measuring {kind[0]} ...", style="dim")
            what, width, height, count, field = kind
            kind = (what, width, height, count // 3, field) if options.quick else kind
            for row in measure(queue, house.folder, kind, 3 if options.quick else 7):
                table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    main()
