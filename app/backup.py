"""`python -m app.backup DATABASE_URL TARGET`: a backup of the database, made while the service works, and checked."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from app.core.errors import AppError, StoreError
from app.core.settings import is_sqlite, load_settings, sqlite_path
from app.services.backup import back_up

MOST_SHOWN = 20

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@command.command()
def backup(
    database_url: Annotated[str, typer.Argument(help="The database, as in DATABASE_URL.")],
    target: Annotated[Path, typer.Argument(help="The new file. Nothing is overwritten.")],
    quiet: Annotated[bool, typer.Option("--quiet", help="Show only what is wrong.")] = False,
) -> None:
    """Copy the database as it is at one moment, sync it to the disk and check every invariant of the copy.

    Exit status: 0 the backup is there and sound, 1 it is there and something in it is broken, 2 there is none.
    """
    try:
        url = load_settings(database_url=database_url).database_url
        if not is_sqlite(url):
            raise StoreError("This copies SQLite files. PostgreSQL has pg_dump for that; see docs/scaling.md.")
        findings = asyncio.run(back_up(sqlite_path(url), target, _Progress(quiet=quiet)))
    except AppError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(2) from None
    broken = [finding for finding in findings if finding.broken]
    for finding in broken:
        typer.echo(f"BROKEN  {finding.shown(MOST_SHOWN)}")
    if broken or not quiet:
        kept = len(findings) - len(broken)
        typer.echo(f"{target}: {target.stat().st_size:,} bytes, {kept} promises kept, {len(broken)} broken.")
    raise typer.Exit(1 if broken else 0)


class _Progress:
    """Says once a second how far the copy is."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._said_at = time.monotonic()

    def __call__(self, part: float) -> None:
        now = time.monotonic()
        if not self._quiet and now - self._said_at >= 1:
            self._said_at = now
            print(f"{part:.0%} copied", file=sys.stderr, flush=True)  # noqa: T201 a command line program


if __name__ == "__main__":
    command()
