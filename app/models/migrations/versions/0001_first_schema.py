"""The first schema: tasks, their attempts and checkpoints, workers, queues."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def only_where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    op.create_table(
        "queues",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("paused", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "tasks",
        sa.Column("id", row_id, nullable=False),
        sa.Column("task_type", sa.String(64), nullable=False),
        sa.Column("queue", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("rank", row_id, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("failure_reason", sa.String(16), nullable=True),
        sa.Column("progress", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("timeout_seconds", sa.Float(), nullable=False),
        sa.Column("lease", row_id, server_default="0", nullable=False),
        sa.Column("lease_expires_at", sa.BigInteger(), nullable=True),
        sa.Column("worker_id", sa.String(64), nullable=True),
        sa.Column("cancel_requested_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("scheduled_at", sa.BigInteger(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("unique_key", sa.String(255), nullable=True),
        sa.Column("idempotency_key", sa.String(255), nullable=True),
        sa.Column("request_hash", sa.String(64), nullable=True),
        sa.Column("concurrency_key", sa.String(255), nullable=True),
        sa.Column("parent_id", row_id, nullable=True),
        sa.Column("tags", sa.Text(), server_default="", nullable=False),
        sa.Column("metadata", sa.Text(), nullable=True),
        sa.Column("traceparent", sa.String(64), nullable=True),
        sa.Column("deaths", sa.Integer(), server_default="0", nullable=False),
        sa.Column("runs_alone", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.CheckConstraint(
            "(status = 'failed') = (failure_reason IS NOT NULL)", name=op.f("ck_tasks_failed_has_reason")
        ),
        sa.CheckConstraint(
            "(status = 'running') = (lease_expires_at IS NOT NULL)", name=op.f("ck_tasks_running_has_lease")
        ),
        sa.CheckConstraint(
            "(status IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL)",
            name=op.f("ck_tasks_terminal_has_end"),
        ),
        sa.CheckConstraint("status <> 'completed' OR result IS NOT NULL", name=op.f("ck_tasks_completed_has_result")),
        sa.CheckConstraint(
            "status IN ('pending', 'scheduled', 'retrying', 'blocked', 'running', 'completed', 'failed', 'cancelled')",
            name=op.f("ck_tasks_status"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('scheduled', 'retrying') OR scheduled_at IS NOT NULL",
            name=op.f("ck_tasks_delayed_has_moment"),
        ),
        sa.CheckConstraint("attempts BETWEEN 0 AND max_attempts", name=op.f("ck_tasks_attempts_within_limit")),
        sa.ForeignKeyConstraint(["parent_id"], ["tasks.id"], name=op.f("fk_tasks_parent_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_tasks_due", "tasks", ["scheduled_at", "id"], **only_where("status IN ('scheduled', 'retrying')")
    )
    op.create_index(
        "ix_tasks_expiring",
        "tasks",
        ["expires_at", "id"],
        **only_where("expires_at IS NOT NULL AND started_at IS NULL AND status IN ('pending', 'scheduled', 'blocked')"),
    )
    op.create_index(
        "ix_tasks_finished",
        "tasks",
        ["status", "finished_at", "id"],
        **only_where("status IN ('completed', 'failed', 'cancelled')"),
    )
    op.create_index("ix_tasks_leases", "tasks", ["lease_expires_at", "id"], **only_where("status = 'running'"))
    op.create_index("ix_tasks_parent", "tasks", ["parent_id"], **only_where("parent_id IS NOT NULL"))
    op.create_index(
        "ix_tasks_pending", "tasks", ["queue", "task_type", "rank", "id"], **only_where("status = 'pending'")
    )
    op.create_index("ix_tasks_unhappy", "tasks", ["status", "id"], **only_where("status IN ('failed', 'cancelled')"))
    op.create_index(
        "uq_tasks_idempotency_key",
        "tasks",
        ["idempotency_key"],
        unique=True,
        **only_where("idempotency_key IS NOT NULL"),
    )
    op.create_index(
        "uq_tasks_unique_key",
        "tasks",
        ["unique_key"],
        unique=True,
        **only_where("unique_key IS NOT NULL AND status IN ('pending', 'scheduled', 'retrying', 'blocked', 'running')"),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("queues", sa.Text(), nullable=False),
        sa.Column("task_types", sa.Text(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("running", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("beat_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "checkpoints",
        sa.Column("task_id", row_id, autoincrement=False, nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_checkpoints_task_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("task_id", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "task_attempts",
        sa.Column("task_id", row_id, autoincrement=False, nullable=False),
        sa.Column("lease", row_id, autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("worker_id", sa.String(64), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("delay_seconds", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_task_attempts_task_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("task_id", "lease"),
        sqlite_with_rowid=False,
    )
