"""The command line of the worker."""

import asyncio
import os
import platform
import re
import signal
from typing import Annotated, NoReturn

import typer

from app.core.env_file import ignored_names
from app.core.errors import AppError, SettingsError, StoreError
from app.core.garbage import collect_seldom, keep_what_is_loaded
from app.core.logger import structlog
from app.core.logs import configure_logging
from app.core.secrets import redactor_of
from app.core.settings import Settings, load_settings
from app.services.wiring import open_services
from app.workers.worker import Worker, WorkerOptions

CORES = os.cpu_count() or 1
MOST_PROCESSES = 256
NAME = re.compile(r"[A-Za-z0-9._:-]{1,40}")

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@command.command()
def work(
    queues: Annotated[str, typer.Option(help="Queues to serve, separated by commas. Default: every queue.")] = "",
    processes: Annotated[
        str,
        typer.Option(
            help="Runner processes, 1 to 256, or `auto`: as many as the work asks for. Default: one per core.",
            metavar="NUMBER|auto",
        ),
    ] = "",
    min_processes: Annotated[int, typer.Option(min=1, max=256, help="Fewest runners with `--processes auto`.")] = 1,
    max_processes: Annotated[
        int | None, typer.Option(min=1, max=256, help="Most runners with `--processes auto`. Default: one per core.")
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=1000, help="Attempts of `async def` executors that share one runner.")
    ] = 16,
    name: Annotated[str, typer.Option(help="Shown in GET /workers. Default: the host's name.")] = "",
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Serve metrics for Prometheus on this port; 0 takes a free one. Default: off."
        ),
    ] = None,
) -> None:
    """Claim tasks and run them until told to stop.

    SIGTERM or Ctrl-C: no new tasks, running ones may finish within SHUTDOWN_GRACE_SECONDS, the rest is handed back
    without using up an attempt. A second signal: at once. Settings come from the environment and `.env`; see USAGE.md.
    """
    options = WorkerOptions(
        name=_checked(name or platform.node()[:40] or "worker", name),
        queues=tuple(_checked(part, part) for part in re.split(r"[,\s]+", queues) if part),
        processes=_number(processes, min_processes),
        concurrency=concurrency,
        most_processes=_most(processes, min_processes, max_processes),
        metrics_port=metrics_port,
    )
    try:
        settings = load_settings()
        configure_logging(settings.log_level, settings.log_format, redact=redactor_of(settings))
        if ignored := ignored_names():
            structlog.get_logger("app").warning(ignored)
        asyncio.run(_serve(settings, options))
    except (SettingsError, StoreError) as error:
        _refuse(str(error), 2)
    except AppError as error:
        _refuse(str(error), 1)


async def _serve(settings: Settings, options: WorkerOptions) -> None:
    async with open_services(settings) as services:
        worker = Worker(services, options)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        keep_what_is_loaded()
        collect_seldom()
        await worker.run()


def _number(processes: str, least: int) -> int:
    """Runners to begin with."""
    if processes == "auto":
        return least
    if not processes:
        return CORES
    if processes.isascii() and processes.isdigit() and 1 <= int(processes) <= MOST_PROCESSES:
        return int(processes)
    raise typer.BadParameter(f"--processes: {processes!r} is neither a number from 1 to {MOST_PROCESSES} nor auto")


def _most(processes: str, least: int, most: int | None) -> int | None:
    """Most runners, None where their number does not change."""
    if processes != "auto":
        if least != 1 or most is not None:
            raise typer.BadParameter("--min-processes and --max-processes need --processes auto")
        return None
    most = max(least, CORES) if most is None else most
    if most < least:
        raise typer.BadParameter(f"--max-processes {most} is less than --min-processes {least}")
    return most


def _checked(value: str, given: str) -> str:
    if NAME.fullmatch(value):
        return value
    if given:
        raise typer.BadParameter(f"{value!r} must match {NAME.pattern}")
    return "worker"


def _refuse(message: str, status: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(status)


def main() -> None:
    """Run the command line."""
    command()
