"""`python -m app.check DATABASE_URL`: does this database keep its promises? Reads only; safe while the service runs."""

import asyncio
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from app.core.errors import AppError
from app.core.settings import load_settings
from app.models.database import Database
from app.services.checker import Checker, Finding

MOST_SHOWN = 20

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@command.command()
def check(
    database_url: Annotated[str, typer.Argument(help="The database. Default: DATABASE_URL.")] = "",
    files: Annotated[
        Path | None, typer.Option(help="Also check that every stored file is whole in this folder (FILES_DIR).")
    ] = None,
    acknowledged: Annotated[
        Path | None,
        typer.Option(help='Also check that every task of this file is there: JSON lines {"id": 1, "key": "..."}.'),
    ] = None,
    final: Annotated[bool, typer.Option("--final", help="All work is done: nothing may wait or run.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show only what is wrong.")] = False,
) -> None:
    """Check every invariant of a database and list what breaks it, with ids.

    Exit status: 0 nothing is wrong, 1 something is, 2 it could not be checked.
    """
    try:
        url = database_url or load_settings().database_url
        checked = load_settings(database_url=url)
        wrong = asyncio.run(_check(checked.database_url, files, acknowledged, final=final, quiet=quiet))
    except AppError as error:
        _refuse(str(error))
    raise typer.Exit(1 if wrong else 0)


async def _check(url: str, files: Path | None, acknowledged: Path | None, *, final: bool, quiet: bool) -> int:
    database = Database(url)
    wrong = kept = 0
    try:
        async for finding in Checker(database, files=files, acknowledged=acknowledged, final=final).findings():
            if finding.broken:
                wrong += 1
                typer.echo(f"BROKEN  {finding.promise}: {_shown(finding)}")
            else:
                kept += 1
                if not quiet:
                    typer.echo(f"kept    {finding.promise}")
    finally:
        await database.close()
    if wrong or not quiet:
        typer.echo(f"{kept} promises kept, {wrong} broken.")
    return wrong


def _shown(finding: Finding) -> str:
    number = len(finding.broken)
    listed = ", ".join(finding.broken[:MOST_SHOWN]) + (", ..." if number > MOST_SHOWN else "")
    if not finding.noun:
        return listed
    return f"{finding.noun}{'s' if number > 1 else ''} {listed}" + (
        f" ({number} in all)" if number > MOST_SHOWN else ""
    )


def _refuse(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(2)


if __name__ == "__main__":
    command()
