"""Files, and which task keeps which."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("size", row_id, nullable=False),
        sa.Column("content_type", sa.String(127), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    condition = sa.text("expires_at IS NOT NULL")
    op.create_index(
        "ix_files_expiring", "files", ["expires_at", "id"], sqlite_where=condition, postgresql_where=condition
    )
    op.create_table(
        "task_files",
        sa.Column("task_id", row_id, autoincrement=False, nullable=False),
        sa.Column("file_id", sa.String(32), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("lease", row_id, nullable=False),
        sa.CheckConstraint("role IN ('input', 'output', 'temporary')", name=op.f("ck_task_files_role")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_task_files_task_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name=op.f("fk_task_files_file_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("task_id", "file_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_task_files_file", "task_files", ["file_id"])
