"""Every table, constraint and index. What SQL can forbid is forbidden here."""

from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
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

from app.core.alerts import AlertState, Kind
from app.core.breaker import BreakerState
from app.core.diagnosis import Severity
from app.core.file import Role
from app.core.tally import BUCKETS, COUNTS
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
LEASED = "lease_expires_at IS NOT NULL"
DELAYED = "status IN ('scheduled', 'retrying')"
UNSTARTED = "expires_at IS NOT NULL AND started_at IS NULL AND status IN ('pending', 'scheduled', 'blocked')"
FINISHED = f"status IN ({_listed(TERMINAL)})"
DEAD = "status = 'failed' AND resolved_at IS NULL"
UNHAPPY = "status IN ('failed', 'cancelled')"
EXPIRING = "expires_at IS NOT NULL"
# As an expression that says nothing to who looks for a key: PostgreSQL would read all that is blocked for it.
BLOCKED = "'' || status = 'blocked'"
CONTENDS = "concurrency_key IS NOT NULL AND status IN ('pending', 'blocked', 'running')"
HOLDS_UNIQUE_KEY = f"unique_key IS NOT NULL AND status IN ({_listed(UNFINISHED)})"
OF_A_TENANT = "tenant <> ''"
ACTIVE = "state IN ('holding', 'firing')"
PAST = "cleared_at IS NOT NULL"
UNSENT = "state = 'waiting'"


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
    Column("tenant", String(64), nullable=False, server_default=""),
    Column("concurrency_limit", Integer),
    Column("webhook_url", Text),
    Column("tracestate", String(512)),
    CheckConstraint(f"status IN ({_listed(tuple(Status))})", name="status"),
    CheckConstraint("(status = 'running') = (lease_expires_at IS NOT NULL)", name="running_has_lease"),
    CheckConstraint(f"(status IN ({_listed(TERMINAL)})) = (finished_at IS NOT NULL)", name="terminal_has_end"),
    CheckConstraint("(status = 'failed') = (failure_reason IS NOT NULL)", name="failed_has_reason"),
    CheckConstraint("status <> 'completed' OR result IS NOT NULL", name="completed_has_result"),
    CheckConstraint("status NOT IN ('scheduled', 'retrying') OR scheduled_at IS NOT NULL", name="delayed_has_moment"),
    CheckConstraint("attempts BETWEEN 0 AND max_attempts", name="attempts_within_limit"),
    # The claim reads only rows it may take: one range of this index for each (queue, type) it serves, in rank order.
    Index("ix_tasks_pending", "queue", "task_type", "rank", "id", **_only(PENDING)),
    Index("ix_tasks_blocked", "queue", "task_type", "rank", "id", **_only(BLOCKED)),
    # Who has a place of a key, and who waits for one, in the order in which they get it.
    Index("ix_tasks_contending", "concurrency_key", "status", "rank", "id", **_only(CONTENDS)),
    Index("ix_tasks_due", "scheduled_at", "id", **_only(DELAYED)),
    # Not `status = 'running'`, which every write to a running task says too: PostgreSQL would find those through this index,
    # by reading all that runs, when its statistics say that next to nothing does.
    Index("ix_tasks_leases", "lease_expires_at", "id", **_only(LEASED)),
    Index("ix_tasks_expiring", "expires_at", "id", **_only(UNSTARTED)),
    Index("ix_tasks_finished", "status", "finished_at", "id", **_only(FINISHED)),
    Index("ix_tasks_dead", "fingerprint", "id", **_only(DEAD)),
    Index("ix_tasks_unhappy", "status", "id", **_only(UNHAPPY)),
    # A key is taken within its tenant alone. The key comes first: it finds the row without knowing the tenant.
    Index("uq_tasks_unique_key", "unique_key", "tenant", unique=True, **_only(HOLDS_UNIQUE_KEY)),
    Index(
        *("uq_tasks_idempotency_key", "idempotency_key", "tenant"),
        unique=True,
        **_only("idempotency_key IS NOT NULL"),
    ),
    Index("ix_tasks_parent", "parent_id", **_only("parent_id IS NOT NULL")),
    # What belongs to no tenant is in neither: a service without tenants pays nothing for them.
    Index("ix_tasks_tenant", "tenant", "id", **_only(OF_A_TENANT)),
    Index("ix_tasks_tenant_status", "tenant", "status", **_only(OF_A_TENANT)),
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

# What an attempt printed and logged, some lines a row: `lines` are the `count` ones up to `number`, counted from 1 in each
# attempt. The oldest are dropped when they are too many, so a first number above 1 says how many went.
task_logs = Table(
    "task_logs",
    metadata,
    Column("task_id", RowId, ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("lease", RowId, primary_key=True, autoincrement=False),
    Column("number", RowId, primary_key=True, autoincrement=False),
    Column("count", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("lines", Text, nullable=False),
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
    Column("tenant", String(64), nullable=False, server_default=""),
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
    Column("memory_bytes", BigInteger),
    Column("runners", Text, nullable=False, server_default="[]"),
)

queues = Table(
    "queues",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("paused", Boolean(create_constraint=False), nullable=False, server_default=false()),
    Column("max_running", Integer),
    Column("rate_limit", Integer),
    Column("rate_period_seconds", Float),
    Column("max_depth", Integer),
    Column("tokens", Float),
    Column("refilled_at", Moment),
)

# What happened, by span of time, queue and task type. A zero is stored as NULL, which takes no room.
tallies = Table(
    "tallies",
    metadata,
    Column("span_seconds", Integer, primary_key=True, autoincrement=False),
    Column("begins_at", Moment, primary_key=True),
    Column("queue", String(64), primary_key=True),
    Column("task_type", String(64), primary_key=True),
    *(Column(name, BigInteger) for name in COUNTS),
    Column("wait_seconds", Float),
    Column("run_seconds", Float),
    *(Column(f"wait_{number}", BigInteger) for number in range(BUCKETS)),
    *(Column(f"run_{number}", BigInteger) for number in range(BUCKETS)),
    sqlite_with_rowid=False,
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

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("scopes", Names, nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment),
    Column("last_used_at", Moment),
    Column("revoked_at", Moment),
)

# Who is told of which ends. A handful of rows: those that are switched on are read where a task ends and one is on at all.
webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("url", Text, nullable=False),
    Column("description", Text),
    Column("events", Names, nullable=False),
    Column("task_types", Names, nullable=False),
    Column("queues", Names, nullable=False),
    Column("tags", Names, nullable=False),
    Column("secrets", Names, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("failing_since", Moment),
    Column("last_error", Text),
    Column("switched_off_at", Moment),
    Column("switched_off_reason", Text),
    CheckConstraint("(failures > 0) = (failing_since IS NOT NULL)", name="failing_has_moment"),
    CheckConstraint("switched_off_at IS NOT NULL OR switched_off_reason IS NULL", name="reason_has_moment"),
    sqlite_with_rowid=False,
)

# Which notice went to which subscription. No reference to `webhooks`: one may be removed while a task's end is being told to
# it, and whoever ends tasks must not wait for that. The rows go with their tasks.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("task_id", RowId, ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("webhook_id", String(16), nullable=False),
    Column("event", String(32), nullable=False),
    Column("message_id", String(100), nullable=False),
    Index("ix_webhook_deliveries_webhook", "webhook_id", "task_id"),
    sqlite_with_rowid=False,
)

# People who signed in with a key. A row is a token; the one before stays a little when another takes its place.
sessions = Table(
    "sessions",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("sign_in", String(32), nullable=False),
    Column("key_id", String(16), nullable=False),
    Column("renewed_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("ends_at", Moment, nullable=False),
)

# An alert from when its trouble was first seen, and for a while after it has cleared.
alerts = Table(
    "alerts",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("rule", String(64), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("queue", String(64)),
    Column("severity", Word(Severity), nullable=False),
    Column("state", Word(AlertState), nullable=False),
    Column("what", Text, nullable=False),
    Column("value", Float, nullable=False),
    Column("threshold", Float, nullable=False),
    Column("began_at", Moment, nullable=False),
    Column("fired_at", Moment),
    Column("calm_since", Moment),
    Column("cleared_at", Moment),
    Column("told_at", Moment),
    CheckConstraint(f"state IN ({_listed(tuple(AlertState))})", name="state"),
    CheckConstraint("(state = 'holding') = (fired_at IS NULL)", name="fires_from_moment"),
    CheckConstraint("(state = 'cleared') = (cleared_at IS NOT NULL)", name="cleared_has_end"),
    Index("uq_alerts_active", "rule", "subject", unique=True, **_only(ACTIVE)),
    Index("ix_alerts_past", "cleared_at", "id", **_only(PAST)),
    sqlite_autoincrement=True,
)

# What a channel is to be told of an alert. `lease` counts the claims of those who send, as that of a task does.
alert_notices = Table(
    "alert_notices",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("alert_id", RowId, ForeignKey("alerts.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Word(Kind), nullable=False),
    Column("channel", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("told", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("lease", RowId, nullable=False, server_default="0"),
    Column("due_at", Moment, nullable=False),
    Column("claimed_until", Moment),
    Column("error", Text),
    Column("created_at", Moment, nullable=False),
    Column("ended_at", Moment),
    CheckConstraint("state IN ('waiting', 'sent', 'given_up')", name="state"),
    CheckConstraint("(state = 'waiting') = (ended_at IS NULL)", name="ended_has_end"),
    Index("ix_alert_notices_unsent", "due_at", "id", **_only(UNSENT)),
    Index("ix_alert_notices_alert", "alert_id", "id"),
    sqlite_autoincrement=True,
)

alert_silences = Table(
    "alert_silences",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("rule", String(64)),
    Column("queue", String(64)),
    Column("ends_at", Moment, nullable=False),
    Column("note", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("created_by", String(64), nullable=False),
    sqlite_autoincrement=True,
)

# Appended only. Not pruned with what it is about.
audit_log = Table(
    "audit_log",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("key_id", String(16)),
    Column("key_name", String(64), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("address", String(64), nullable=False),
    Column("action", String(32), nullable=False),
    Column("target", String(255), nullable=False),
    Column("before", Text),
    Column("after", Text),
    Index("ix_audit_log_at", "at", "id"),
    Index("ix_audit_log_tenant", "tenant", "id", **_only(OF_A_TENANT)),
    sqlite_autoincrement=True,
)

# When something was last done of which one process at a time is enough.
turns = Table(
    "turns",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("taken_at", Moment, nullable=False),
    sqlite_with_rowid=False,
)
