"""What the load looks like at this moment: a panel that moves in a terminal, plain lines elsewhere."""

import asyncio
import time
from collections import Counter, deque
from contextlib import nullcontext

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from examples.demo.load import Load
from examples.demo.service import expect
from taskclient import Task

LOOK_SECONDS = 0.2
STALL_SECONDS = 60
LINE_SECONDS = 2
EVENTS_SHOWN = 5


class View:
    """Looks several times a second, and shows what it saw."""

    def __init__(self, load: Load, console: Console) -> None:
        self.load = load
        self.console = console
        self.moves = console.is_terminal and not console.is_dumb_terminal
        self.width = min(100, console.width - 2)  # room for the ^C that a terminal writes
        now = time.perf_counter()
        self.samples: deque[tuple[float, int]] = deque([(now, 0)], maxlen=400)
        self.last_line = now
        self.told = 0
        self.batch_percent = 0.0
        self.advanced_at, self.advance = now, (0, 0.0)

    async def watch(self, sending: "asyncio.Task[None]") -> None:
        """Look and show until all is sent and done. Raises DemoFailed when a child has ended or nothing moves."""
        with Live(console=self.console, auto_refresh=False) if self.moves else nullcontext() as screen:
            while not sending.done() or self.load.ended < self.load.planned:
                if sending.done():
                    sending.result()
                self.load.service.ensure_alive()
                await self.look(screen)
                await asyncio.wait({sending}, timeout=LOOK_SECONDS)
                if sending.done():
                    await asyncio.sleep(LOOK_SECONDS)
            await self.look(screen)

    async def look(self, screen: Live | None) -> None:
        stats = await self.load.client.stats()
        running = [task async for task in self.load.client.list(status="running", limit=200)]
        await self.load.count()
        if self.load.batch:
            progress = (await self.load.client.get(self.load.batch.id)).progress
            # A new attempt has said nothing yet: what was seen last stands until it does.
            self.batch_percent = (progress and progress.percent) or self.batch_percent
        self.ensure_progress()
        self.samples.append((time.perf_counter(), stats.completed + stats.failed + stats.cancelled))
        if screen is not None:
            screen.update(self.panel(running), refresh=True)
        else:
            self.print_lines(running)

    def ensure_progress(self) -> None:
        now, seen = time.perf_counter(), (self.load.ended, self.batch_percent)
        if seen != self.advance:
            self.advanced_at, self.advance = now, seen
        expect(now - self.advanced_at < STALL_SECONDS, f"Nothing has moved for {STALL_SECONDS} s.")

    def rate(self) -> float:
        """Tasks ended per second, over the last second."""
        now, ended = self.samples[-1]
        since, before = next(sample for sample in self.samples if sample[0] >= now - 1.2)
        return (ended - before) / (now - since) if now > since else 0.0

    # In a terminal

    def panel(self, running: list[Task]) -> Panel:
        top = (self.kinds_table(), "", self.bars(), "", self.workers(running), "")
        seconds = f"{time.perf_counter() - self.load.began:.1f} s"
        title = Text.assemble((f"{self.rate():,.0f}", "bold"), " tasks/s   ", seconds)
        return Panel(
            Group(*top, *self.last_events()), title=title, title_align="right", width=self.width, border_style="dim"
        )

    def kinds_table(self) -> Table:
        table = Table(box=None, pad_edge=False, expand=True, header_style="dim", padding=(0, 1))
        table.add_column("kind", style="cyan", no_wrap=True)
        table.add_column("", ratio=1)
        for name in ("waiting", "running", "done", "failed"):
            table.add_column(name, justify="right", no_wrap=True, min_width=7)
        for kind in self.load.kinds.values():
            style = "green" if kind.ended == kind.planned else "blue"
            bar = ProgressBar(kind.planned, kind.ended, style="grey23", complete_style=style, finished_style="green")
            done = kind.ended - kind.failed
            numbers = (number_text(kind.waiting), number_text(kind.running, "cyan"), number_text(done, "green"))
            table.add_row(kind.name, bar, *numbers, number_text(kind.failed, "red"))
        return table

    def bars(self) -> Table:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(ratio=1)
        table.add_column(justify="right", no_wrap=True)
        load = self.load
        table.add_row("all tasks", bar_of(load.ended, load.planned), f"{load.ended:,} of {load.planned:,}")
        done = round(self.batch_percent * load.items / 100)
        table.add_row("the batch", bar_of(done, load.items), f"{done:,} of {load.items:,} items")
        return table

    def workers(self, running: list[Task]) -> Table:
        """Each worker with its process and what it runs."""
        table = Table.grid(padding=(0, 1), expand=True)
        for column in range(4):
            table.add_column(no_wrap=True, ratio=1 if column == 3 else None)
        for name, child in self.load.service.workers.items():
            mine = Counter(task.queue for task in running if (task.worker_id or "").startswith(f"{name}-"))
            work = ", ".join(f"{count} {kind}" for kind, count in mine.most_common()) or "idle"
            if name in self.load.service.killed_at:
                since = time.perf_counter() - self.load.service.killed_at[name]
                state, work = Text(f"killed {since:.0f} s ago", "bold red"), f"left {work}" if mine else ""
            else:
                state = Text("alive", "green")
            table.add_row(Text(name, "bold"), Text(f"pid {child.process.pid}", "dim"), state, work)
        return table

    def last_events(self) -> list[Text]:
        """The last lines of what happened, always as many, so that the panel keeps its height."""
        lines = [event_text(*event) for event in list(self.load.events)[-EVENTS_SHOWN:]]
        return lines + [Text("")] * (EVENTS_SHOWN - len(lines))

    # Elsewhere

    def print_lines(self, running: list[Task]) -> None:
        for seconds, event in list(self.load.events)[self.told :]:
            self.console.print(Text(f"{seconds:5.1f} s  {event}"), soft_wrap=True)
        self.told = len(self.load.events)
        now = time.perf_counter()
        if now - self.last_line >= LINE_SECONDS:
            self.last_line = now
            counts = f"{self.load.ended:,} of {self.load.planned:,} ended, {len(running)} running"
            batch = f"batch {self.batch_percent:.0f} %"
            line = f"{now - self.load.began:5.1f} s  {self.rate():5.0f} tasks/s  {counts}, {batch}"
            self.console.print(line, soft_wrap=True)


def bar_of(done: int, planned: int) -> ProgressBar:
    return ProgressBar(planned, done, style="grey23", complete_style="blue", finished_style="green")


def number_text(number: int, style: str = "") -> Text:
    """Zero is nothing to look at."""
    return Text(f"{number:,}", style if number else "dim")


def event_text(seconds: float, event: str) -> Text:
    style = "bold red" if event.startswith("kill -9") else "yellow" if "goes on at" in event else ""
    return Text.assemble((f"{seconds:5.1f} s  ", "dim"), (event, style), no_wrap=True, overflow="ellipsis")
