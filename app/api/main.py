"""The command line of the API."""

import asyncio
import os
import signal
import socket
import sys
from typing import Annotated, NoReturn

import typer
import uvicorn
from uvicorn.supervisors import Multiprocess

from app.core.errors import AppError, SettingsError
from app.core.logs import configure_logging
from app.core.settings import Settings, load_settings
from app.services.wiring import open_services

BACKLOG = 2048

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@command.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: API_HOST, 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one. Default: API_PORT, 8000.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="API processes that share the port.")] = 1,
) -> None:
    """Serve the HTTP API until told to stop.

    SIGTERM or Ctrl-C: no new connections, requests under way are answered. Settings come from the environment and
    `.env`; see USAGE.md.
    """
    try:
        given = {"api_host": host, "api_port": port}
        settings = load_settings(**{name: value for name, value in given.items() if value is not None})
        configure_logging(settings.log_level, settings.log_format)
        listener = _bound(settings)
        asyncio.run(_check(settings))
    except SettingsError as error:
        _refuse(str(error), 2)
    except AppError as error:
        _refuse(str(error), 1)
    # The processes read their settings from the environment; what the command line said goes there.
    os.environ["API_HOST"], os.environ["API_PORT"] = settings.api_host, str(listener.getsockname()[1])
    shown = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
    typer.echo(f"Listening on http://{shown}:{listener.getsockname()[1]} (documentation at /docs)", err=True)
    _run(settings, listener, workers)


def _bound(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.api_host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.api_host, settings.api_port))
    except OSError as error:
        _refuse(f"Cannot listen on {settings.api_host}:{settings.api_port}: {error.strerror or error}", 1)
    listener.set_inheritable(True)
    return listener


async def _check(settings: Settings) -> None:
    """Open and close everything once: what cannot work is told in one line, and the schema is ready for all workers."""
    async with open_services(settings):
        return


def _run(settings: Settings, listener: socket.socket, workers: int) -> None:
    config = uvicorn.Config(
        "app.main:app",
        workers=workers,
        log_config=None,
        access_log=settings.access_log,
        backlog=BACKLOG,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_grace_seconds)),
        timeout_keep_alive=30,
        server_header=False,
    )
    if workers == 1:
        # The server raises the signal that stopped it once more when all is answered; having obeyed is no failure.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit(0))
        uvicorn.Server(config).run(sockets=[listener])
    else:
        Multiprocess(config, sockets=[listener]).run()


def _refuse(message: str, status: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(status)


def main() -> None:
    """Run the command line."""
    command()
