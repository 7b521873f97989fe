"""What one watches: memory of workers, log lines of attempts; and the vendors' part of a trace."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("tasks", sa.Column("tracestate", sa.String(512), nullable=True))
    op.add_column("workers", sa.Column("memory_bytes", sa.BigInteger(), nullable=True))
    op.add_column("workers", sa.Column("runners", sa.Text(), nullable=False, server_default="[]"))
    op.create_table(
        "task_logs",
        sa.Column("task_id", row_id, autoincrement=False, nullable=False),
        sa.Column("lease", row_id, autoincrement=False, nullable=False),
        sa.Column("number", row_id, autoincrement=False, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("lines", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_task_logs_task_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("task_id", "lease", "number"),
        sqlite_with_rowid=False,
    )
