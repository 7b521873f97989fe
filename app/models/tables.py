"""Every table, constraint and index. What SQL can forbid is forbidden here."""

from enum import StrEnum
from typing import Any

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
)

from app.core.breaker import BreakerState
from app.core.file import Role
from app.core.task import TERMINAL, UNFINISHED, FailureReason, Status
from app.models.types import Moment, Names, RowId, Word

metadata = MetaData(
    naming_convention={"ck": "ck_%(table_name)s_%(constraint_name)s", "fk": "fk_%(table_name)s_%(column_0_name)s"}
)


def _listed(words: tuple[StrEnum, ...]) -> str:
    return ", ".join(f"'{word}'" for word in words)


# The conditions of the partial indexes. A statement that is to use one must say its condition word for word: SQLite sees
# neither that status = 'failed' implies the third, nor what a parameter will be.
PENDING = "status = 'pending'"
RUNNING = "status = 'running'"
DELAYED = "status IN ('scheduled', 'retrying')"
UNSTARTED = "expires_at IS NOT NULL AND started_at IS NULL AND status IN ('pending', 'scheduled', 'blocked')"
FINISHED = f"status IN ({_listed(TERMINAL)})"
DEAD = "status = 'failed' AND resolved_at IS NULL"
UNHAPPY = "status IN ('failed', 'cancelled')"
EXPIRING = "expires_at IS NOT NULL"
HOLDS_UNIQUE_KEY = f"unique_key IS NOT NULL AND status IN ({_listed(UNFINISHED)})"


def _only(condition: str) -> dict[str, Any]:
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


tasks = Table(
    "tasks",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("task_type", String(64), nullable=False),
    Column("queue", String(64), nullable=False),
    Column("status", Word(Status), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("rank", RowId, nullable=False),
    Column("payload", Text, nullable=False),
    Column("result", Text),
    Column("error", Text),
    Column("failure_reason", Word(FailureReason)),
    Column("progress", Text),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("max_attempts", Integer, nullable=False),
    Column("timeout_seconds", Float, nullable=False),
    Column("lease", RowId, nullable=False, server_default="0"),
    Column("lease_expires_at", Moment),
    Column("worker_id", String(64)),
    Column("cancel_requested_at", Moment),
    Column("created_at", Moment, nullable=False),
    Column("scheduled_at", Moment),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    Column("expires_at", Moment),
    Column("unique_key", String(255)),
    Column("idempotency_key", String(255)),
    Column("request_hash", String(64)),
    Column("concurrency_key", String(255)),
    Column("parent_id", RowId, ForeignKey("tasks.id", ondelete="SET NULL")),
    Column("tags", Names, nullable=False, server_default=""),
    Column("metadata", Text),
    Column("traceparent", String(64)),
    Column("retry", Text),
    Column("retry_for_seconds", Float),
    Column("retry_until", Moment),
    Column("deaths", Integer, nullable=False, server_default="0"),
    Column("runs_alone", Boolean(create_constraint=False), nullable=False, server_default=false()),
    Column("fingerprint", String(16)),
    Column("resolved_at", Moment),
    Column("resolution", Text),
    CheckConstraint(f"status IN ({_listed(tuple(Status))})", name="status"),
    CheckConstraint("(status = 'running') = (lease_expires_at IS NOT NULL)", name="running_has_lease"),
    CheckConstraint(f"(status IN ({_listed(TERMINAL)})) = (finished_at IS NOT NULL)", name="terminal_has_end"),
    CheckConstraint("(status = 'failed') = (failure_reason IS NOT NULL)", name="failed_has_reason"),
    CheckConstraint("status <> 'completed' OR result IS NOT NULL", name="completed_has_result"),
    CheckConstraint("status NOT IN ('scheduled', 'retrying') OR scheduled_at IS NOT NULL", name="delayed_has_moment"),
    CheckConstraint("attempts BETWEEN 0 AND max_attempts", name="attempts_within_limit"),
    # The claim reads only rows it may take: one range of this index for each (queue, type) it serves, in rank order.
    Index("ix_tasks_pending", "queue", "task_type", "rank", "id", **_only(PENDING)),
    Index("ix_tasks_due", "scheduled_at", "id", **_only(DELAYED)),
    Index("ix_tasks_leases", "lease_expires_at", "id", **_only(RUNNING)),
    Index("ix_tasks_expiring", "expires_at", "id", **_only(UNSTARTED)),
    Index("ix_tasks_finished", "status", "finished_at", "id", **_only(FINISHED)),
    Index("ix_tasks_dead", "fingerprint", "id", **_only(DEAD)),
    Index("ix_tasks_unhappy", "status", "id", **_only(UNHAPPY)),
    Index("uq_tasks_unique_key", "unique_key", unique=True, **_only(HOLDS_UNIQUE_KEY)),
    Index("uq_tasks_idempotency_key", "idempotency_key", unique=True, **_only("idempotency_key IS NOT NULL")),
    Index("ix_tasks_parent", "parent_id", **_only("parent_id IS NOT NULL")),
    # An id is never given out twice: an old lease must not fit a new row.
    sqlite_autoincrement=True,
)

task_attempts = Table(
    "task_attempts",
    metadata,
    Column("task_id", RowId, ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("lease", RowId, primary_key=True, autoincrement=False),
    Column("attempt", Integer, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("worker_id", String(64)),
    Column("started_at", Moment, nullable=False),
    Column("finished_at", Moment, nullable=False),
    Column("error", Text),
    Column("delay_seconds", Float),
    sqlite_with_rowid=False,
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("task_id", RowId, ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("data", Text, nullable=False),
    sqlite_with_rowid=False,
)

files = Table(
    "files",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("size", RowId, nullable=False),
    Column("content_type", String(127), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment),
    Index("ix_files_expiring", "expires_at", "id", **_only(EXPIRING)),
)

# Which task keeps which file. `lease` is that of the attempt which saved it, 0 for what came with the submission.
task_files = Table(
    "task_files",
    metadata,
    Column("task_id", RowId, ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("file_id", String(32), ForeignKey("files.id", ondelete="CASCADE"), primary_key=True),
    Column("role", Word(Role), nullable=False),
    Column("lease", RowId, nullable=False),
    CheckConstraint(f"role IN ({_listed(tuple(Role))})", name="role"),
    Index("ix_task_files_file", "file_id"),
    sqlite_with_rowid=False,
)

workers = Table(
    "workers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("queues", Names, nullable=False),
    Column("task_types", Names, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("running", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("beat_at", Moment, nullable=False),
)

queues = Table(
    "queues",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("paused", Boolean(create_constraint=False), nullable=False, server_default=false()),
)

# Only breakers that are not closed, or have failures on record: a service in good health has no row.
breakers = Table(
    "breakers",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("state", Word(BreakerState), nullable=False),
    Column("failures", Integer, nullable=False),
    Column("window_started_at", Moment),
    Column("trips", Integer, nullable=False),
    Column("opened_at", Moment),
    Column("open_until", Moment),
    Column("reason", Text),
    Column("tripped_by_hand", Boolean(create_constraint=False), nullable=False),
    Column("let_through", Text, nullable=False),
    CheckConstraint(f"state IN ({_listed(tuple(BreakerState))})", name="state"),
    CheckConstraint("state = 'closed' OR opened_at IS NOT NULL", name="open_has_moment"),
    sqlite_with_rowid=False,
)
