"""Retry policies of tasks, and what became of those that failed."""

import sqlalchemy as sa
from alembic import op

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
    op.create_index("ix_tasks_dead", "tasks", ["fingerprint", "id"], sqlite_where=condition, postgresql_where=condition)
