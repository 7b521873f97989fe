"""Migrations only add, so that programs of the release before go on with the tables of this one: docs/deploy.md, "Upgrade".

What is to go is left alone by one release and dropped by a later one.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tests.conftest import STORES
from tests.stores import Stores

MIGRATIONS = Path(__file__).parents[2] / "app/models/migrations"
DRIVERS = {"sqlite": "sqlite+aiosqlite://", "postgres": "postgresql+asyncpg://"}
VERSIONS = sorted(script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions())

BEFORE_THE_FIRST_RELEASE = {
    "0006": {
        "unique index tasks.uq_tasks_unique_key is another",
        "unique index tasks.uq_tasks_idempotency_key is another",
    },
}
"""What was done while nobody had a release to come from."""


@dataclass(frozen=True)
class Column:
    kind: str
    nullable: bool
    has_default: bool


@dataclass(frozen=True)
class Shape:
    """What a program relies on of one table. Rules are what may refuse a row."""

    columns: dict[str, Column]
    rules: dict[str, str] = field(default_factory=dict)


Shapes = dict[str, Shape]


def shapes(connection: Connection) -> Shapes:
    """Of all tables of ours."""
    look = inspect(connection)
    found = {}
    for table in sorted(set(look.get_table_names()) - {"alembic_version", "sqlite_sequence"}):
        columns = {
            str(each["name"]): Column(str(each["type"]), bool(each["nullable"]), each.get("default") is not None)
            for each in look.get_columns(table)
        }
        rules = {f"check {table}.{each['name']}": str(each["sqltext"]) for each in look.get_check_constraints(table)}
        for key in look.get_foreign_keys(table):
            rules[f"foreign key {table}.{key['constrained_columns']}"] = str(key["referred_table"])
        for index in look.get_indexes(table):
            if index["unique"]:
                rules[f"unique index {table}.{index['name']}"] = str(index["column_names"])
        found[table] = Shape(columns, rules)
    return found


def hurt(before: Shapes, after: Shapes) -> set[str]:
    """What a program that knows `before` misses in `after`, or is refused there."""
    found = {f"table {table} is gone" for table in before.keys() - after.keys()}
    for table in before.keys() & after.keys():
        old, new = before[table], after[table]
        for name, column in new.columns.items():
            was = old.columns.get(name)
            if was is None:
                if not (column.nullable or column.has_default):
                    found.add(f"column {table}.{name} must be given")
            elif column != was and not (
                column == replace(was, nullable=True) or column == replace(was, has_default=True)
            ):
                found.add(f"column {table}.{name} is another")
        found |= {f"column {table}.{name} is gone" for name in old.columns.keys() - new.columns.keys()}
        found |= {f"{rule} is new" for rule in new.rules.keys() - old.rules.keys()}
        # A rule that is gone would let in what others rely on not to find; and ON CONFLICT names unique indexes.
        found |= {f"{rule} is gone" for rule in old.rules.keys() - new.rules.keys()}
        found |= {f"{rule} is another" for rule, text in old.rules.items() if new.rules.get(rule, text) != text}
    return found


def brought_to(connection: Connection, version: str) -> Shapes:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, version)
    return shapes(connection)


@pytest.mark.parametrize("store", STORES)
async def test_no_migration_takes_anything_from_the_programs_before_it(stores: Stores) -> None:
    url = DRIVERS[stores.kind] + (await stores.bare()).partition("://")[2]
    engine = create_async_engine(url, poolclass=NullPool)
    before: Shapes = {}
    async with engine.begin() as connection:
        for version in VERSIONS:
            after = await connection.run_sync(brought_to, version)
            assert hurt(before, after) == BEFORE_THE_FIRST_RELEASE.get(version, set()), version
            before = after
    await engine.dispose()
    assert "unique index tasks.uq_tasks_unique_key" in before["tasks"].rules
    assert "check tasks.ck_tasks_status" in before["tasks"].rules


FAULTS = [
    ("DROP TABLE notes", "table notes is gone"),
    ("ALTER TABLE notes DROP COLUMN text", "column notes.text is gone"),
    ("ALTER TABLE notes RENAME COLUMN text TO body", "column notes.text is gone"),
    ("ALTER TABLE notes ADD COLUMN owner TEXT NOT NULL DEFAULT ''", None),
    ("ALTER TABLE notes ADD COLUMN owner TEXT", None),
    ("CREATE TABLE owners (name TEXT NOT NULL)", None),
    ("CREATE INDEX ix_notes ON notes (text)", None),
    ("CREATE UNIQUE INDEX uq_notes_text ON notes (text)", "unique index notes.uq_notes_text is new"),
    ("DROP INDEX uq_notes_name", "unique index notes.uq_notes_name is gone"),
    ("ALTER TABLE notes ADD COLUMN pages INTEGER CHECK (pages > 0)", "check notes.None is new"),
    (
        "DROP TABLE notes; CREATE TABLE notes (name TEXT NOT NULL, text TEXT, owner TEXT NOT NULL)",
        "column notes.owner must be given",
    ),
    ("DROP TABLE notes; CREATE TABLE notes (name TEXT NOT NULL, text INTEGER)", "column notes.text is another"),
    ("DROP TABLE notes; CREATE TABLE notes (name TEXT NOT NULL, text TEXT NOT NULL)", "column notes.text is another"),
]


@pytest.mark.parametrize(("statements", "told"), FAULTS)
def test_what_takes_something_would_be_found(statements: str, told: str | None) -> None:
    with create_engine("sqlite://").begin() as connection:
        connection.exec_driver_sql("CREATE TABLE notes (name TEXT NOT NULL, text TEXT)")
        connection.exec_driver_sql("CREATE UNIQUE INDEX uq_notes_name ON notes (name)")
        before = shapes(connection)
        for statement in statements.split("; "):
            connection.exec_driver_sql(statement)
        found = hurt(before, shapes(connection))
    assert (told in found) if told else found == set()
