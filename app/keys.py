"""`python -m app.keys`: make, list, revoke and remove API keys. Works on the database itself, whether or not the API runs."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Annotated, NoReturn, TypeVar

import typer

from app.core.audit import COMMAND_LINE
from app.core.errors import AppError, Conflict, NotFound, SettingsError, StoreError
from app.core.events import EventBus
from app.core.keys import NAME, ApiKey, Scope
from app.core.settings import load_settings
from app.models.database import Database
from app.services.keys import Keys

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
LONGEST = timedelta(days=3650)

Answer = TypeVar("Answer")

command = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="API keys of the service in DATABASE_URL. As long as there is none, the API asks for none.",
)


@command.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is called: who or what will use it.")],
    scopes: Annotated[
        str, typer.Option(help="What it may do, separated by commas: read, submit, work, manage, admin.")
    ],
    tenant: Annotated[
        str, typer.Option(help="Whose tasks and files it sees, and no others. Default: everyone's.")
    ] = "",
    expires_in: Annotated[
        str, typer.Option(help="How long it is good: 90d, 12h, 30m, 45s, 2w. Default: until it is revoked.")
    ] = "",
) -> None:
    """Make a key and print it: once, alone, on standard output. It cannot be shown again."""
    chosen = _scopes(scopes)
    for value, what in ((name, "NAME"), (tenant or "-", "--tenant")):
        if not re.fullmatch(NAME, value):
            _refuse(f"{what}: 1 to 64 letters, digits, dots, underscores, colons and hyphens, not {value!r}.")
    lasts = _duration(expires_in) if expires_in else None
    key, token = _carried_out(lambda keys: keys.create(name, chosen, tenant, lasts, by=COMMAND_LINE))
    typer.echo(
        f"Key {key.id} ({', '.join(key.scopes)}), {_whose(key)}, {_until(key)}. It is not shown again:", err=True
    )
    typer.echo(token)


@command.command("list")
def show() -> None:
    """List every key, without its secret."""
    keys = _carried_out(lambda keys: keys.listed())
    if not keys:
        typer.echo("There is no key: the API asks for none.", err=True)
        return
    lines = [("ID", "NAME", "SCOPES", "TENANT", "CREATED", "LAST USED", "STATE")]
    for key in keys:
        moments = (_moment(key.created_at), _moment(key.last_used_at))
        lines.append((key.id, key.name, ",".join(key.scopes), key.tenant or "-", *moments, _state(key)))
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@command.command()
def revoke(key: Annotated[str, typer.Argument(help="Its id, or its name if only one that is good has it.")]) -> None:
    """End a key. An API that runs refuses it within two seconds."""
    ended = _carried_out(lambda keys: _revoke(keys, key))
    typer.echo(f"Key {ended.id} ({ended.name}) is revoked.", err=True)


@command.command()
def remove(key_id: Annotated[str, typer.Argument(help="The id of a revoked key.")]) -> None:
    """Forget a revoked key. When the last one is gone, the API asks for no key any more."""
    _carried_out(lambda keys: keys.remove(key_id, by=COMMAND_LINE))
    typer.echo(f"Key {key_id} is forgotten.", err=True)


async def _revoke(keys: Keys, wanted: str) -> ApiKey:
    known = await keys.listed()
    ids = [key.id for key in known if key.id == wanted]
    ids = ids or [key.id for key in known if key.name == wanted and key.revoked_at is None]
    if len(ids) > 1:
        raise Conflict(f"{len(ids)} keys are called {wanted}: name one by its id, {', '.join(ids)}.")
    if not ids:
        raise NotFound("key", wanted)
    return await keys.revoke(ids[0], by=COMMAND_LINE)


def _carried_out(work: Callable[[Keys], Awaitable[Answer]]) -> Answer:
    """What `work`, given the keys of the database, comes to. The database is migrated first, if need be."""

    async def run() -> Answer:
        settings = load_settings()
        database = Database(settings.database_url, durability=settings.durability, reserve_bytes=settings.reserve_bytes)
        try:
            await database.open()
            return await work(Keys(database, EventBus(), settings.max_keys_per_tenant))
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except (SettingsError, StoreError) as error:
        _refuse(str(error))
    except AppError as error:
        _refuse(str(error), 1)


def _scopes(text: str) -> list[Scope]:
    words = [word for word in re.split(r"[,\s]+", text) if word]
    unknown = [word for word in words if word not in list(Scope)]
    if unknown or not words:
        _refuse(f"--scopes: any of {', '.join(Scope)}, separated by commas, not {', '.join(unknown) or 'nothing'}.")
    return [Scope(word) for word in words]


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"([1-9]\d{0,8})([smhdw])", text)
    lasts = timedelta(seconds=int(found[1]) * UNITS[found[2]]) if found else None
    if lasts is None or lasts > LONGEST:
        _refuse(f"--expires-in: a number and s, m, h, d or w, like 90d, at most ten years, not {text!r}.")
    return lasts


def _whose(key: ApiKey) -> str:
    return f"for tenant {key.tenant}" if key.tenant else "for every tenant"


def _until(key: ApiKey) -> str:
    return f"good until {_moment(key.expires_at)}" if key.expires_at else "good until it is revoked"


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {_moment(key.revoked_at)}"
    return f"until {_moment(key.expires_at)}" if key.expires_at else "good"


def _moment(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else "-"


def _refuse(message: str, status: int = 2) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(status)


if __name__ == "__main__":
    command()
