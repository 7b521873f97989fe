"""Brings the schema to the version this program needs. Safe with many processes starting at once."""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.errors import SchemaError

HEAD = "0004"
"""The newest migration. Known here so that a start on an up-to-date database need not load Alembic at all."""
LOCK_DEADLINE_SECONDS = 60.0


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    """Hold the right to migrate the database at `path`. Raises SchemaError if another process keeps it for a minute."""
    handle = os.open(f"{path}.migrate.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        await asyncio.to_thread(_take, handle, path)
        yield
    finally:
        os.close(handle)


def _take(handle: int, path: Path) -> None:
    deadline = time.monotonic() + LOCK_DEADLINE_SECONDS
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise SchemaError(f"Another process has been migrating {path} for a minute.") from None
            time.sleep(0.02)


async def upgrade(connection: AsyncConnection) -> None:
    """Run what is missing, in one transaction. Raises SchemaError for a schema that this program does not know."""
    version = await connection.run_sync(_version)
    if version != HEAD:
        await connection.run_sync(_run_alembic, version)


def _version(connection: Connection) -> str | None:
    tables = inspect(connection).get_table_names()
    if "alembic_version" in tables:
        version: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return version
    if "tasks" in tables:
        raise SchemaError("The database has a table `tasks` that this service did not make.")
    return None


def _run_alembic(connection: Connection, version: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise SchemaError(
            f"The database has schema version {version}, which this program does not know (it knows up to {HEAD})."
            " A newer program made it: upgrade this one."
        )
    config.attributes["connection"] = connection
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    command.upgrade(config, "head")
    connection.commit()


def run(context: Any, connection: Connection) -> None:
    """What Alembic's env.py does: run the migrations on the connection it was handed, in the transaction it is in."""
    from app.models.tables import metadata

    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=False)
    context.run_migrations()
