"""The command line of the worker."""

import asyncio
import os
import platform
import re
import signal
from typing import Annotated, NoReturn

import typer

from app.core.errors import AppError, SettingsError
from app.core.logs import configure_logging
from app.core.settings import Settings, load_settings
from app.services.wiring import open_services
from app.workers.worker import Worker, WorkerOptions

NAME = re.compile(r"[A-Za-z0-9._:-]{1,40}")

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@command.command()
def work(
    queues: Annotated[str, typer.Option(help="Queues to serve, separated by commas. Default: every queue.")] = "",
    processes: Annotated[
        int | None, typer.Option(min=1, max=256, help="Runner processes. Default: one per core.")
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=1000, help="Attempts of `async def` executors that share one runner.")
    ] = 16,
    name: Annotated[str, typer.Option(help="Shown in GET /workers. Default: the host's name.")] = "",
) -> None:
    """Claim tasks and run them until told to stop.

    SIGTERM or Ctrl-C: no new tasks, running ones may finish within SHUTDOWN_GRACE_SECONDS, the rest is handed back
    without using up an attempt. A second signal: at once. Settings come from the environment and `.env`; see USAGE.md.
    """
    options = WorkerOptions(
        name=_checked(name or platform.node()[:40] or "worker", name),
        queues=tuple(_checked(part, part) for part in re.split(r"[,\s]+", queues) if part),
        processes=processes or os.cpu_count() or 1,
        concurrency=concurrency,
    )
    try:
        settings = load_settings()
        configure_logging(settings.log_level, settings.log_format)
        asyncio.run(_serve(settings, options))
    except SettingsError as error:
        _refuse(str(error), 2)
    except AppError as error:
        _refuse(str(error), 1)


async def _serve(settings: Settings, options: WorkerOptions) -> None:
    async with open_services(settings) as services:
        worker = Worker(services, options)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        await worker.run()


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
