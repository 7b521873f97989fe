"""`python -m app.migrate`: brings the database to the schema of this release, before any program of it starts.

API and workers do so too when they start; this is for deployments that want to see it done first.
"""

import asyncio
from typing import NoReturn

import typer

from app.core.errors import AppError, SettingsError, StoreError
from app.core.logs import configure_logging
from app.core.settings import Settings, load_settings
from app.services.wiring import open_services

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@command.command()
def migrate() -> None:
    """Make or update the tables of DATABASE_URL, under a lock, and load every executor once.

    Exit status: 0 all is ready, 1 an executor module cannot be loaded, 2 a setting or the database is wrong.
    """
    try:
        settings = load_settings()
        configure_logging(settings.log_level, settings.log_format)
        asyncio.run(_open_and_close(settings))
    except (SettingsError, StoreError) as error:
        _refuse(str(error), 2)
    except AppError as error:
        _refuse(str(error), 1)
    typer.echo("The database is ready for this release.")


async def _open_and_close(settings: Settings) -> None:
    async with open_services(settings):
        return


def _refuse(message: str, status: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(status)


if __name__ == "__main__":
    command()
