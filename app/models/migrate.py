"""Brings the schema to the version this program needs. Safe with many processes starting at once."""

import hashlib
import re
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, exc, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.errors import SchemaError

HEAD = "0012"
"""The newest migration. Known here so that a start on an up-to-date database need not load Alembic at all."""
LOCK_DEADLINE_SECONDS = 60.0
_MOVING = "moving-"


def moving_mark(source: str) -> str:
    """What stands in place of the version while all that is in the database called `source` is being copied here: so no
    program can be started on a part of it."""
    return f"{_MOVING}{HEAD}-{hashlib.sha256(source.encode()).hexdigest()[:16]}"


def is_moving(version: str) -> bool:
    """Whether this is such a mark, of whatever source and schema."""
    return version.startswith(_MOVING)


def is_head(version: str) -> bool:
    """Whether the tables are those of this program, be they all filled or not."""
    return version == HEAD or version.startswith(f"{_MOVING}{HEAD}-")


async def is_current(connection: AsyncConnection, name: str) -> bool:
    """Whether nothing is to be done for the database called `name`. Raises SchemaError for tables that are not ours."""
    return await connection.run_sync(_version, name) == HEAD


async def upgrade(connection: AsyncConnection, name: str) -> None:
    """Run what is missing, in the caller's transaction, under a lock that keeps others from the same. Raises SchemaError
    for a schema that this program does not know."""
    present = await connection.run_sync(_version, name)
    if present != HEAD:
        await connection.run_sync(_run_alembic, present, name)


def _version(connection: Connection, name: str) -> str | None:
    tables = inspect(connection).get_table_names()
    if "alembic_version" in tables:
        versions = list(connection.scalars(text("SELECT * FROM alembic_version")))
        if len(versions) != 1:
            raise SchemaError(
                f"The database {name} is damaged: its table alembic_version has {len(versions)} rows and must have one."
            )
        if is_moving(str(versions[0])):
            raise SchemaError(
                f"The database {name} holds a part of another one: a transfer into it is not finished. Run `python -m"
                " app.transfer` again."
            )
        return str(versions[0])
    if "tasks" in tables:
        raise SchemaError(f"The database {name} has a table `tasks` that this service did not make.")
    return None


def _run_alembic(connection: Connection, version: str | None, name: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise SchemaError(
            f"The database {name} has schema version {version!r}, which this program does not know (it knows up to {HEAD})."
            " A newer program made it: upgrade this one."
        )
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except (exc.OperationalError, exc.ProgrammingError) as error:
        if re.search("already exists|duplicate column|no such|does not exist", str(error.orig)):
            raise SchemaError(
                f"The database {name} is damaged: it says it has schema version {version}, but then {error.orig}."
            ) from error
        raise


def run(context: Any, connection: Connection) -> None:
    """What Alembic's env.py does: run the migrations on the connection it was handed, in the transaction it is in."""
    from app.models.tables import metadata

    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=False)
    context.run_migrations()
