"""What the tables themselves refuse, whoever writes; those of tasks and breakers are tried beside their statements."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Table
from sqlalchemy import insert as insert_into
from sqlalchemy.exc import IntegrityError

from app.models import tables
from app.models.database import Database
from tests.models.conftest import Insert

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
FILE = {"id": "f" * 32, "name": "a", "size": 1, "content_type": "text/plain", "sha256": "0" * 64, "created_at": NOON}
WEBHOOK = {
    "id": "w",
    "tenant": "",
    "url": "https://example.com",
    "events": (),
    "task_types": (),
    "queues": (),
    "tags": (),
    "secrets": (),
    "created_at": NOON,
    "failures": 0,
}
ALERT = {
    "rule": "failures",
    "subject": "",
    "severity": "warning",
    "state": "firing",
    "what": "It fails.",
    "value": 1.0,
    "threshold": 1.0,
    "began_at": NOON,
    "fired_at": NOON,
}
NOTICE = {
    "alert_id": 1,
    "kind": "fired",
    "channel": "mail",
    "state": "waiting",
    "told": "{}",
    "due_at": NOON,
    "created_at": NOON,
}
KEPT = {"task_id": 1, "file_id": FILE["id"], "role": "input", "lease": 0}
FIRST: dict[Table, dict[str, Any]] = {
    tables.files: FILE,
    tables.task_files: KEPT,
    tables.webhooks: WEBHOOK,
    tables.alerts: ALERT | {"id": 1},
    tables.alert_notices: NOTICE,
}
"""A row that each table takes."""
OTHER: dict[Table, dict[str, Any]] = {
    tables.task_files: {"task_id": 2},
    tables.webhooks: {"id": "v"},
    tables.alerts: {"id": 2, "subject": "other"},
    tables.alert_notices: {"channel": "slack"},
}
"""What makes another one of it."""


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        (tables.task_files, {"role": "owner"}),
        (tables.webhooks, {"failures": 1}),
        (tables.webhooks, {"failing_since": NOON}),
        (tables.webhooks, {"switched_off_reason": "dead"}),
        (tables.alerts, {"state": "over"}),
        (tables.alerts, {"fired_at": None}),
        (tables.alerts, {"state": "holding"}),
        (tables.alerts, {"state": "cleared"}),
        (tables.alerts, {"cleared_at": NOON}),
        (tables.alert_notices, {"state": "lost", "ended_at": NOON}),
        (tables.alert_notices, {"state": "sent"}),
        (tables.alert_notices, {"ended_at": NOON}),
    ],
    ids=str,
)
async def test_a_row_that_makes_no_sense_is_refused(
    database: Database, insert: Insert, table: Table, wrong: dict[str, Any]
) -> None:
    await insert({}, {})
    async with database.write() as connection:
        for one, row in FIRST.items():
            await connection.execute(insert_into(one).values(row))
    # All that tells the rows of a table apart is different, so nothing but what is wrong can be refused.
    other = FIRST[table] | OTHER.get(table, {})
    async with database.write() as connection:
        await connection.execute(insert_into(table).values(other))
        await connection.execute(table.delete().where(*(table.c[name] == value for name, value in other.items())))
    with pytest.raises(IntegrityError):
        async with database.write() as connection:
            await connection.execute(insert_into(table).values(other | wrong))


async def test_of_one_rule_and_subject_one_alert_is_active(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(insert_into(tables.alerts).values(ALERT))
        await connection.execute(insert_into(tables.alerts).values(ALERT | {"state": "cleared", "cleared_at": NOON}))
    with pytest.raises(IntegrityError):
        async with database.write() as connection:
            await connection.execute(insert_into(tables.alerts).values(ALERT))
