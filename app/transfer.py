"""`python -m app.transfer FROM_URL TO_URL`: moves a database to another store, SQLite or PostgreSQL, and compares."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from app.core.errors import AppError, SettingsError
from app.core.settings import Settings, is_sqlite, load_settings, sqlite_path
from app.models.database import Database
from app.services import transfer as service
from app.services.transfer import Transfer, TransferResult

MOST_SHOWN = 20

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@command.command()
def transfer(
    from_url: Annotated[str, typer.Argument(help="The database to move, as in DATABASE_URL.")],
    to_url: Annotated[str, typer.Argument(help="Where to. It must hold no tasks, or the beginning of this transfer.")],
    ahead: Annotated[
        bool, typer.Option("--ahead", help="Copy while the service still works; run again without this to finish.")
    ] = False,
    files_from: Annotated[
        str, typer.Option(help="Copy the bytes of files, too, from here: a folder or s3://bucket/prefix.")
    ] = "",
    files_to: Annotated[str, typer.Option(help="Where the bytes of files are copied to: a folder or s3://...")] = "",
    quiet: Annotated[bool, typer.Option("--quiet", help="Show only what is wrong.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: one object, with each table and broken promise.")
    ] = False,
) -> None:
    """Move tasks, history and all else to another database, compare both, and only then let programs start on it.

    Stop the API and all workers first, or copy ahead with --ahead. What was broken off goes on with the same command.
    The source is not changed.

    Exit status: 0 all is there, 1 something in the target is not as it should be, 2 nothing could be moved.
    """
    try:
        source, target = (load_settings(database_url=url) for url in (from_url, to_url))
        files = _places(files_from, files_to)
        with _progress(quiet=quiet) as progress:
            result = asyncio.run(_moved(source, target, files, progress, ahead=ahead))
    except AppError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("Broken off. The same command goes on from here.", err=True)
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(json.dumps({"done": False} if result is None else _in_json(result), ensure_ascii=False))
    elif result is None:
        typer.echo("Copied ahead. Stop the API and every worker, then run the same command without --ahead.")
    else:
        _tell(result, quiet=quiet)
    if result is not None:
        raise typer.Exit(0 if result.is_done and not result.broken else 1)


async def _moved(
    source: Settings, target: Settings, files: tuple[str, str] | None, progress: service.Progress, *, ahead: bool
) -> TransferResult | None:
    """None where it was only copied ahead."""
    old, new = (Database(_absolute(one.database_url), patient=True) for one in (source, target))
    moving = Transfer(old, new, timedelta(seconds=2 * source.lease_seconds), progress, files)
    try:
        if not ahead:
            return await moving.move()
        await moving.copy_ahead()
        return None
    finally:
        await old.close()
        await new.close()


def _places(files_from: str, files_to: str) -> tuple[str, str] | None:
    """Raises SettingsError."""
    if bool(files_from) != bool(files_to):
        raise SettingsError("Give both --files-from and --files-to, or neither where files stay in their place.")
    for place in (files_from, files_to):
        if "://" in place:
            load_settings(files_url=place)
    return (files_from, files_to) if files_from else None


def _absolute(url: str) -> str:
    """One database has one name, from wherever one looks at it."""
    return f"sqlite:///{Path(sqlite_path(url)).resolve()}" if is_sqlite(url) else url


def _in_json(result: TransferResult) -> dict[str, Any]:
    return {
        "done": result.is_done,
        "tables": [
            {"table": one.name, "same": one.is_same, "source_rows": one.source.rows, "target_rows": one.target.rows}
            for one in result.tables
        ],
        "kept": result.kept,
        "broken": [
            {"promise": one.promise, "broken": one.broken, "as_in_source": result.was_broken(one)}
            for one in result.broken
        ],
    }


def _tell(result: TransferResult, *, quiet: bool) -> None:
    for table in result.tables:
        if not table.is_same:
            counts = f"{table.source.rows:,} rows in the source, {table.target.rows:,} in the target"
            typer.echo(f"DIFFERS {table.name}: {counts}")
        elif not quiet:
            typer.echo(
                f"same    {table.name}: {table.target.rows:,} rows, sum of hashes {table.target.total >> 192:016x}..."
            )
    for finding in result.broken:
        before = " (as in the source)" if result.was_broken(finding) else ""
        typer.echo(f"BROKEN  {finding.shown(MOST_SHOWN)}{before}")
    if result.is_done and not quiet:
        typer.echo(
            f"{result.kept} promises kept, {len(result.broken)} broken. Start the API and the workers on the target."
        )
    if not result.is_done:
        typer.echo("The target is not what the source is, and stays shut. Is the source still in use? Run this again.")


@contextmanager
def _progress(*, quiet: bool) -> Iterator[service.Progress]:
    """A bar for each step, on standard error, where that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bars:
        shown: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if not total:
                return
            bar = shown.get(what)
            if bar is None:
                bar = shown[what] = bars.add_task(what)
            bars.update(bar, completed=done, total=total)

        yield tell


if __name__ == "__main__":
    command()
