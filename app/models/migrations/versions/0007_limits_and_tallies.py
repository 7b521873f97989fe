"""Limits of queues and of concurrency keys, and tallies of what happened."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

BUCKETS = 15


def upgrade() -> None:
    for column in (
        sa.Column("max_running", sa.Integer(), nullable=True),
        sa.Column("rate_limit", sa.Integer(), nullable=True),
        sa.Column("rate_period_seconds", sa.Float(), nullable=True),
        sa.Column("max_depth", sa.Integer(), nullable=True),
        sa.Column("tokens", sa.Float(), nullable=True),
        sa.Column("refilled_at", sa.BigInteger(), nullable=True),
    ):
        op.add_column("queues", column)
    op.add_column("tasks", sa.Column("concurrency_limit", sa.Integer(), nullable=True))
    _index("ix_tasks_blocked", ["queue", "task_type", "rank", "id"], "'' || status = 'blocked'")
    contending = "concurrency_key IS NOT NULL AND status IN ('pending', 'blocked', 'running')"
    _index("ix_tasks_contending", ["concurrency_key", "status", "rank", "id"], contending)
    op.create_table(
        "tallies",
        sa.Column("span_seconds", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("begins_at", sa.BigInteger(), nullable=False),
        sa.Column("queue", sa.String(64), nullable=False),
        sa.Column("task_type", sa.String(64), nullable=False),
        *(
            sa.Column(name, sa.BigInteger(), nullable=True)
            for name in ("submitted", "completed", "failed", "retried", "cancelled")
        ),
        sa.Column("wait_seconds", sa.Float(), nullable=True),
        sa.Column("run_seconds", sa.Float(), nullable=True),
        *(sa.Column(f"wait_{number}", sa.BigInteger(), nullable=True) for number in range(BUCKETS)),
        *(sa.Column(f"run_{number}", sa.BigInteger(), nullable=True) for number in range(BUCKETS)),
        sa.PrimaryKeyConstraint("span_seconds", "begins_at", "queue", "task_type"),
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "postgresql":
        # The rows of this minute and hour are written over and over, by columns that no index has.
        op.execute("ALTER TABLE tallies SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02)")


def _index(name: str, columns: list[str], condition: str) -> None:
    only = sa.text(condition)
    op.create_index(name, "tasks", columns, sqlite_where=only, postgresql_where=only)
