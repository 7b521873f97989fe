"""`python -m app.check DATABASE_URL`: does this database keep its promises? Reads only; safe while the service runs."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from app.core.env_file import ignored_names
from app.core.errors import AppError
from app.core.settings import load_settings
from app.models.database import Database
from app.services.checker import Checker, CheckResult

MOST_SHOWN = 20

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@command.command()
def check(
    database_url: Annotated[str, typer.Argument(help="The database. Default: DATABASE_URL.")] = "",
    files: Annotated[
        str | None, typer.Option(help="Also check that every stored file is whole there (FILES_DIR, or FILES_URL).")
    ] = None,
    acknowledged: Annotated[
        Path | None,
        typer.Option(help='Also check that every task of this file is there: JSON lines {"id": 1, "key": "..."}.'),
    ] = None,
    final: Annotated[bool, typer.Option("--final", help="All work is done: nothing may wait or run.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show only what is wrong.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: one promise a line, with all that breaks it.")
    ] = False,
) -> None:
    """Check every invariant of a database and list what breaks it, with ids.

    Exit status: 0 nothing is wrong, 1 something is, 2 it could not be checked.
    """
    shown = in_json if as_json else in_words

    def tell(finding: CheckResult) -> None:
        if finding.broken or not quiet:
            typer.echo(shown(finding))

    try:
        url = database_url or load_settings().database_url
        if not database_url and (ignored := ignored_names()):
            typer.echo(ignored, err=True)
        database = Database(load_settings(database_url=url).database_url, patient=True)
        checker = Checker(database, files=files, acknowledged=acknowledged, final=final)
        kept, wrong = asyncio.run(_check(database, checker, tell))
    except AppError as error:
        _refuse(str(error))
    if not as_json and (wrong or not quiet):
        typer.echo(f"{kept} promises kept, {wrong} broken.")
    raise typer.Exit(1 if wrong else 0)


async def _check(database: Database, checker: Checker, tell: Callable[[CheckResult], None]) -> tuple[int, int]:
    """How many promises are kept, and how many broken."""
    wrong = kept = 0
    try:
        async for finding in checker.findings():
            wrong, kept = wrong + bool(finding.broken), kept + (not finding.broken)
            tell(finding)
    finally:
        await database.close()
    return kept, wrong


def in_words(finding: CheckResult) -> str:
    """A line for people."""
    return f"BROKEN  {finding.shown(MOST_SHOWN)}" if finding.broken else f"kept    {finding.promise}"


def in_json(finding: CheckResult) -> str:
    """The same for programs, whole."""
    return json.dumps({"name": finding.name, "promise": finding.promise, "broken": finding.broken}, ensure_ascii=False)


def _refuse(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(2)


if __name__ == "__main__":
    command()
