"""The command line of the API."""

import asyncio
import os
import signal
import socket
import sys
from ipaddress import ip_address
from tempfile import NamedTemporaryFile
from typing import Annotated, NoReturn

import typer
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from app.api.limits import MEMORY_BYTES, SHARED
from app.core.env_file import ignored_names
from app.core.errors import AppError, SettingsError, StoreError
from app.core.logger import structlog
from app.core.logs import configure_logging
from app.core.secrets import redactor_of
from app.core.settings import Settings, load_settings
from app.services.wiring import open_services

BACKLOG = 2048
OPEN_DOOR = (
    "Refusing to listen on {host}, where others can reach it, without any API key: make one with"
    " `python -m app.keys create NAME --scopes admin`, or say --insecure."
)

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@command.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: API_HOST, 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one. Default: API_PORT, 8000.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="API processes that share the port.")] = 1,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen on other addresses than loopback although no API key was made.")
    ] = False,
) -> None:
    """Serve the HTTP API until told to stop.

    SIGTERM or Ctrl-C: no new connections, requests under way are answered. Settings come from the environment and
    `.env`; see USAGE.md.
    """
    try:
        given = {"api_host": host, "api_port": port}
        settings = load_settings(**{name: value for name, value in given.items() if value is not None})
        configure_logging(settings.log_level, settings.log_format, redact=redactor_of(settings))
        if ignored := ignored_names():
            structlog.get_logger("app").warning(ignored)
        listener = _bound(settings)
        keys_are_on, database = asyncio.run(_check(settings))
    except (SettingsError, StoreError) as error:
        _refuse(str(error), 2)
    except AppError as error:
        _refuse(str(error), 1)
    if not (keys_are_on or insecure or _is_loopback(listener)):
        _refuse(OPEN_DOOR.format(host=settings.api_host), 2)
    if not (keys_are_on or _is_loopback(listener)):
        typer.echo("No API key was made: whoever reaches this address may do everything.", err=True)
    # The processes read their settings from the environment; what the command line said goes there.
    os.environ["API_HOST"], os.environ["API_PORT"] = settings.api_host, str(listener.getsockname()[1])
    shown = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
    typer.echo(f"Database: {database}", err=True)
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


def _is_loopback(listener: socket.socket) -> bool:
    return ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


async def _check(settings: Settings) -> tuple[bool, str]:
    """Open and close everything once: what cannot work is told in one line, and the schema is ready for all workers. Whether
    calls need a key, and where the database is."""
    async with open_services(settings) as services:
        await services.ring.load()
        return services.ring.on, services.database.whole_name


def _run(settings: Settings, listener: socket.socket, workers: int) -> None:
    config = uvicorn.Config(
        "app.main:app",
        workers=workers,
        log_config=None,
        access_log=settings.access_log,
        backlog=BACKLOG,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_grace_seconds)),
        timeout_keep_alive=30,
        http="app.api.protocol:PatientProtocol",
        ws="none",
        server_header=False,
    )
    if workers == 1:
        # The server raises the signal that stopped it once more when all is answered; having obeyed is no failure.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit(0))
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except SystemExit as ended:
            if ended.code == STARTUP_FAILURE:
                raise typer.Exit(1) from None
            raise
    else:
        processes = Multiprocess(config, sockets=[listener])
        with NamedTemporaryFile(prefix="task-service-rates-") as rates:
            rates.truncate(MEMORY_BYTES)
            os.environ[SHARED] = rates.name
            processes.run()
        if any(process.exitcode == STARTUP_FAILURE for process in processes.processes):
            raise typer.Exit(1)


def _refuse(message: str, status: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(status)


def main() -> None:
    """Run the command line."""
    command()
