"""What is said at the end: whether all is well, how long things took, and what became of the killed worker's tasks."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from examples.demo.load import Kind, Load, number_of
from examples.demo.service import expect
from examples.demo.show import facts, milliseconds, picture
from taskclient import AsyncClient, Task
from taskclient.models import Attempt

GOALS = {"create": 50, "status": 20, "list": 30, "health": 10}
"""Milliseconds each call should stay below, on an idle machine."""
ROOMY = 36
"""Lines of a terminal in which a picture leaves room for the tables below it."""
IDLE = 0.3
"""A machine is idle whose load average is below this, for each core."""


@dataclass(frozen=True)
class Ending:
    """The tasks as they are in the end, by id, and what ran more than once: its attempts that did not complete."""

    tasks: dict[int, Task]
    again: dict[int, list[Attempt]]


async def ending_of(load: Load) -> Ending:
    """Ask for every task. Raises DemoFailed if one that was acknowledged is missing or did not end as it should."""
    tasks = {task.id: task async for task in load.client.list()}
    for kind in load.kinds.values():
        for task_id in kind.ids:
            expect(task_id in tasks, f"Task {task_id} ({kind.name}) was acknowledged and is gone.")
            task = tasks[task_id]
            says = f"Task {task_id} ({kind.name}) should be {kind.expected}, but is {task.status}: {task.error}"
            expect(task.status == kind.expected, says)
    again = {}
    for task_id, task in tasks.items():
        if task.attempts > 1:
            again[task_id] = [one for one in await load.client.attempts(task_id) if one.outcome != "completed"]
    return Ending(tasks, again)


async def report(load: Load, console: Console, idle_load: float, output: Path) -> None:
    """The final tables. Raises DemoFailed if something is not as it should be."""
    ending = await ending_of(load)
    console.print()
    if console.height > ROOMY and (small := picture(load.postcard, console, 48)) is not None:
        console.print(small)
        console.print()
    console.print(Text("Tasks, in milliseconds", "bold"))
    console.print(kinds_table(load.kinds, ending))
    console.print(
        Text("Long waits: low priority and what came after the bulk waited for it; again: its worker died.", "dim")
    )
    console.print()
    console.print(Text("Calls while the load ran, in milliseconds", "bold"))
    console.print(calls_table(load.stopwatch.latencies))
    console.print(Text(about_the_machine(idle_load), "dim"))
    console.print()
    rows = (
        ("all is well", lost_nothing(load, ending)),
        ("recovery", recovery_of(load, ending)),
        ("the batch", await moods_of(load)),
        ("a picture", write_picture(load.postcard, output)),
    )
    console.print(facts(*rows))


def kinds_table(kinds: dict[str, Kind], ending: Ending) -> Table:
    """By kind: how many ended, how many of them ran again, and the times of the last attempt."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("kind", style="cyan", no_wrap=True)
    for name in ("ended", "again", "wait p50", "p99", "run p50", "p99"):
        table.add_column(name, justify="right")
    for kind in kinds.values():
        rows = [ending.tasks[task_id] for task_id in kind.ids]
        started = [task for task in rows if task.started_at]
        waits = [milliseconds(task.scheduled_at or task.created_at, task.started_at) for task in started]
        runs = [milliseconds(task.started_at, task.finished_at) for task in started]
        columns = (figure(values, share) for values in (waits, runs) for share in (0.5, 0.99))
        again = sum(task_id in ending.again for task_id in kind.ids)
        table.add_row(kind.name, f"{len(rows):,}", str(again), *columns)
    return table


def calls_table(latencies: dict[str, list[float]]) -> Table:
    """Latencies of the calls, as the clients measured them, beside their goals."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("call", style="cyan")
    for name in ("made", "p50", "p99", "goal"):
        table.add_column(name, justify="right")
    table.add_column("")
    for name, goal in GOALS.items():
        values = latencies[name]
        table.add_row(
            name, f"{len(values):,}", figure(values, 0.5), figure(values, 0.99), f"< {goal}", verdict(values, goal)
        )
    return table


def verdict(values: Sequence[float], goal: float) -> Text:
    if quantile(values, 0.99) < goal:
        return Text("met", "green")
    if quantile(values, 0.5) < goal:
        return Text("met by most, missed at p99", "yellow")
    return Text("missed", "red")


def about_the_machine(load_before: float) -> str:
    """How far the goals can be expected to be met here."""
    cores = os.cpu_count() or 1
    share = f"Here API, workers and clients shared {cores} cores with the load above."
    if load_before < IDLE * cores:
        return f"The goals are meant for an idle machine. {share}"
    busy = f"this one was busy before the demo began: load average {load_before:.1f} on {cores} cores"
    return f"The goals are meant for an idle machine, and {busy}."


def lost_nothing(load: Load, ending: Ending) -> Text:
    """Every acknowledged task ended; in which way, and which ran again."""
    acknowledged = [task_id for kind in load.kinds.values() for task_id in kind.ids]
    states = Counter(ending.tasks[task_id].status for task_id in acknowledged)
    counts = ", ".join(f"{count:,} {status}" for status, count in states.most_common())
    text = f"all {len(acknowledged):,} acknowledged tasks have ended as they should ({counts}); lost: 0; run twice: "
    return Text(text + f"{len(ending.again):,}", "green")


def recovery_of(load: Load, ending: Ending) -> str:
    """What the kill cost."""
    seen = load.recovery
    lost = [one for attempts in ending.again.values() for one in attempts if one.worker_id == seen.worker_id]
    return (
        f"{seen.worker} was killed with {number_of(seen.running, 'task')}; {number_of(len(lost), 'lost attempt')} of it "
        f"ran again. After {seen.seconds:.1f} s the batch went on at item {seen.stored + 1:,} of {load.items:,}, not at 1."
    )


async def moods_of(load: Load) -> str:
    """What the batch found out about the guest book, from the file of its results."""
    assert load.batch is not None
    lines = await results_of(load.client, load.batch.result)
    moods = Counter(line["result"]["sentiment"]["label"] for line in lines if line["status"] == "completed")
    expect(moods.total() == load.items, f"The batch has {moods.total():,} results for {load.items:,} items.")
    counts = ", ".join(f"{count:,} {mood}" for mood, count in moods.most_common())
    return f"{load.items:,} entries of a guest book: {counts}"


async def results_of(client: AsyncClient, result: dict[str, Any]) -> list[dict[str, Any]]:
    """The outcomes of a batch, which are in the result while they are few and in a file otherwise."""
    if "items" in result:
        return list(result["items"])
    return [orjson.loads(line) for line in (await client.files.read(result["results_file_id"])).splitlines()]


def write_picture(data: bytes, output: Path) -> str:
    target = output / "postcard.jpg"
    try:
        output.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    except OSError as error:
        expect(False, f"{target} cannot be written: {error.strerror}. Choose a folder with --output.")
    return f"{target}  ({len(data):,} bytes)"


def figure(values: Sequence[float], share: float) -> str:
    if not values:
        return "-"
    value = quantile(values, share)
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all values do not exceed (nearest rank)."""
    return sorted(values)[max(0, -(-len(values) * round(share * 100) // 100) - 1)]
