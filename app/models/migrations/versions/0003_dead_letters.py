"""Retry policies of tasks, and what became of those that failed."""

import json

import sqlalchemy as sa
from alembic import op

from app.core.fingerprint import fingerprint

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column("retry", sa.Text(), nullable=True),
        sa.Column("retry_for_seconds", sa.Float(), nullable=True),
        sa.Column("retry_until", sa.BigInteger(), nullable=True),
        sa.Column("fingerprint", sa.String(16), nullable=True),
        sa.Column("resolved_at", sa.BigInteger(), nullable=True),
        sa.Column("resolution", sa.Text(), nullable=True),
    ):
        op.add_column("tasks", column)
    condition = sa.text("status = 'failed' AND resolved_at IS NULL")
    _find_causes()
    op.create_index("ix_tasks_dead", "tasks", ["fingerprint", "id"], sqlite_where=condition, postgresql_where=condition)


def _find_causes() -> None:
    """Give what has failed already the cause that it would have been given, or no group of dead letters would have it."""
    connection = op.get_bind()
    failed = sa.text(
        "SELECT id, task_type, error FROM tasks WHERE status = 'failed' AND id > :after ORDER BY id LIMIT 1000"
    )
    cause = sa.text("UPDATE tasks SET fingerprint = :cause WHERE id = :id")
    after = 0
    while rows := connection.execute(failed, {"after": after}).all():
        errors = [(id_, task_type, json.loads(error or "{}")) for id_, task_type, error in rows]
        connection.execute(
            cause,
            [
                {"id": id_, "cause": fingerprint(task_type, error.get("type", ""), error.get("message", ""))}
                for id_, task_type, error in errors
            ],
        )
        after = rows[-1][0]
