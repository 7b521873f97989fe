"""Batches through the real service: items a second and the memory of the process that drives them, for growing numbers.

    python benchmarks/batches.py                    1,000, 10,000 and 100,000 items, some without work and some texts
    python benchmarks/batches.py --items 1000000    one number of items
    python benchmarks/batches.py --concurrency 4

Items are uploaded as a file. The time is the attempt's own, from its start to its end as the service saw them; starting
the processes that run the items is part of it. Memory is the peak of the batch's runner, without those processes.
"""

import argparse
import re
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.house import cpu_seconds, open_house, tree

MODULES = "benchmarks.executors,app.workers.executors.batch_processing"
SENTENCE = "The weather is really great today, and Mr. Smith paid $12.50 for ticket number {} in Berlin."


def nothing(number: int) -> Iterator[bytes]:
    """Items whose work is to give a number back."""
    return (b'{"number":%d}\n' % one for one in range(number))


def texts(number: int) -> Iterator[bytes]:
    """Short texts, each analysed with every default operation."""
    return (f'"{SENTENCE.format(one)}"\n'.encode() for one in range(number))


KINDS = {"bench.nothing": nothing, "text_processing": texts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, action="append", help="how many items; may be given several times")
    parser.add_argument("--type", choices=KINDS, action="append", help="what is done with them")
    parser.add_argument("--concurrency", type=int, default=2)
    asked = parser.parse_args()
    table = Table("task type", "items", "seconds", "a second", "peak MB", "CPU s")
    with open_house() as house:
        _, address = house.api(EXECUTOR_MODULES=MODULES)
        worker = house.worker(address, "--processes", "1", EXECUTOR_MODULES=MODULES)
        for task_type in asked.type or KINDS:
            for number in asked.items or (1_000, 10_000, 100_000):
                path = house.folder / "items.jsonl"
                with path.open("wb") as file:
                    file.writelines(KINDS[task_type](number))
                table.add_row(
                    task_type, f"{number:,}", *measure(address, worker.pid, path, task_type, asked.concurrency)
                )
    Console().print(table)


def measure(address: str, worker: int, path: Path, task_type: str, concurrency: int) -> tuple[str, ...]:
    """Run one batch; its seconds, items a second, peak memory and CPU time."""
    with path.open("rb") as file:
        items_file_id = httpx.post(f"{address}/files", files={"file": file}).raise_for_status().json()["id"]
    payload = {"items_file_id": items_file_id, "task_type": task_type, "concurrency": concurrency}
    cpu = cpu_seconds(tree(worker))
    body = {"task_type": "batch_processing", "payload": payload}
    task_id = httpx.post(f"{address}/tasks", json=body).raise_for_status().json()["id"]
    # The pool's runner lives as long as the worker: its peak is that of the largest batch so far.
    (runner,) = {int(one) for one in Path(f"/proc/{worker}/task/{worker}/children").read_text().split()}
    task: dict[str, Any] = {"finished_at": None}
    spent = 0.0
    while task["finished_at"] is None:
        spent = max(spent, cpu_seconds(tree(worker)))  # what ends is no longer counted
        time.sleep(0.1)
        task = httpx.get(f"{address}/tasks/{task_id}").json()
    result = task["result"]
    if task["status"] != "completed" or result["completed"] != result["total"]:
        raise SystemExit(f"the batch went wrong: {task['error'] or result}")
    # What the attempt took itself, from the store: the polling here is not part of it.
    seconds = _moment(task["finished_at"]) - _moment(task["started_at"])
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{runner}/status").read_text())[1]) / 1024  # type: ignore[index]
    return f"{seconds:.2f}", f"{result['total'] / seconds:,.0f}", f"{peak:.0f}", f"{spent - cpu:.1f}"


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    main()
