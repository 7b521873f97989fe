"""Settings of the hot tables on PostgreSQL, and an index of leases that only the sweep finds."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_tasks_leases", "tasks")
    condition = sa.text("lease_expires_at IS NOT NULL")
    op.create_index(
        "ix_tasks_leases", "tasks", ["lease_expires_at", "id"], sqlite_where=condition, postgresql_where=condition
    )
    if op.get_bind().dialect.name != "postgresql":
        return
    # A task is written at least three times (stored, claimed, settled), and each time every index gets a new entry, because
    # an indexed column changes. What is dead must go soon: by default vacuum would wait until a fifth of all that is kept
    # has died, which with a million finished tasks are 200,000 dead entries before the first one that waits.
    for table in ("tasks", "task_attempts", "checkpoints", "task_files", "files"):
        op.execute(
            f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,"
            " autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02,"
            " autovacuum_vacuum_cost_limit = 2000)"
        )
    # These few rows are written over and over, by columns that no index has: with room in the page that costs no index.
    for table in ("workers", "breakers", "queues"):
        op.execute(
            f"ALTER TABLE {table} SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200)"
        )
    # Progress and cancel requests are the only writes to a task that change no indexed column; a little room is for them.
    op.execute("ALTER TABLE tasks SET (fillfactor = 90)")
