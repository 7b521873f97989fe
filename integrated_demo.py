"""The whole service at work: starts an API and two workers, sends them a mixed load, kills a worker, shows it all live.

`python integrated_demo.py` needs nothing else: a free port, a database in a temporary folder, and both gone at the end.
Every number is measured here or comes from an answer of the API. `demo.py` explains the calls one by one; the parts of
this demo are in `examples/demo`.
"""

import asyncio
import io
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from examples.demo.load import Load
from examples.demo.report import report
from examples.demo.service import RUNNERS, DemoFailed, Service, StopSignals, service_folder
from examples.demo.show import facts
from examples.demo.stopwatch import Stopwatch
from examples.demo.view import View
from taskclient import AsyncClient, NoAnswer


async def perform(service: Service, console: Console, seconds: float, bulk: int, items: int, output: Path) -> None:
    """Start the service, send the load, show it live, then show what was measured. Raises DemoFailed."""
    load_before = os.getloadavg()[0]
    with console.status("Starting API and workers"):
        await service.start()
    # Without retries: an API that has died is to be told at once.
    client, stopwatch = AsyncClient(service.url, retries=0), Stopwatch(service.url)
    try:
        # The first answers are slower, as caches fill.
        await client.health()
        await client.task_types()
        load = Load(service, client, stopwatch, seconds, bulk, items)
        console.print(introduction(load))
        console.print()
        await watched(load, View(load, console))
        await report(load, console, load_before, output)
    except (OSError, EOFError, NoAnswer) as error:
        await asyncio.sleep(0.5)  # a process that was just killed is reaped by then
        service.ensure_alive()
        raise DemoFailed(f"The API did not answer: {error!r}") from error
    finally:
        stopwatch.close()
        await client.close()


async def watched(load: Load, view: View) -> None:
    """Run the load while the view looks on. Raises what stopped either."""
    sending = asyncio.create_task(load.run())
    try:
        await view.watch(sending)
        await sending
    except BaseExceptionGroup as errors:
        raise first_cause(errors) from None
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


def first_cause(error: BaseException) -> BaseException:
    """The first real error within nested groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def introduction(load: Load) -> object:
    """What runs, and what will be sent to it."""
    service = load.service
    rows = [("API", f"{service.url}  (pid {service.api.process.pid})")]
    rows += [(name, f"{RUNNERS} runners  (pid {worker.process.pid})") for name, worker in service.workers.items()]
    rows += [("load", f"{load.planned:,} tasks of every kind, and a batch of {load.items:,} items")]
    return facts(*rows)


def main(
    seconds: Annotated[float, typer.Option(min=1, max=600, help="How long tasks are sent at a steady pace.")] = 15,
    bulk: Annotated[int, typer.Option(min=1, max=10_000, help="Tasks in the bulk submission beside that.")] = 1500,
    items: Annotated[int, typer.Option(min=1000, max=100_000, help="Items of the batch.")] = 4000,
    output: Annotated[Path, typer.Option(help="Folder for a picture that was made.")] = Path("data/demo"),
) -> None:
    """Start the service, send it work, kill a worker, show the results, and leave nothing running.

    The API gets a free port, the database a temporary folder. Exits with 0 if every task ended as it should.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an old terminal without UTF-8 shows question marks
    console = Console(highlight=False)
    console.print(Rule(Text("Task service", "bold"), align="left", style="dim"))
    began = time.perf_counter()
    try:
        with StopSignals() as signals, service_folder(signals) as service:
            signals.run(perform(service, console, seconds, bulk, items, output))
    except DemoFailed as reason:
        print(f"The demo failed. {reason}", file=sys.stderr)
        raise SystemExit(1) from None
    took = time.perf_counter() - began
    console.print()
    console.print(Text(f"Done in {took:.1f} s. API and workers are stopped, their folder is gone.", "green"))


if __name__ == "__main__":
    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command.command()(main)
    command()
