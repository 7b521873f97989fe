"""API keys, and whose a task or a file is. What belongs to no tenant is in none of the new indexes."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    for table in ("tasks", "files"):
        op.add_column(table, sa.Column("tenant", sa.String(64), nullable=False, server_default=""))
    # A key is taken within its tenant alone. The key comes first: it finds the row without knowing the tenant.
    waits = "unique_key IS NOT NULL AND status IN ('pending', 'scheduled', 'retrying', 'blocked', 'running')"
    _replace_unique("uq_tasks_unique_key", "unique_key", waits)
    _replace_unique("uq_tasks_idempotency_key", "idempotency_key", "idempotency_key IS NOT NULL")
    _index("ix_tasks_tenant", ["tenant", "id"], "tenant <> ''")
    _index("ix_tasks_tenant_status", ["tenant", "status"], "tenant <> ''")


def _replace_unique(name: str, column: str, condition: str) -> None:
    op.drop_index(name, "tasks")
    _index(name, [column, "tenant"], condition, unique=True)


def _index(name: str, columns: list[str], condition: str, *, unique: bool = False) -> None:
    where = sa.text(condition)
    op.create_index(name, "tasks", columns, unique=unique, sqlite_where=where, postgresql_where=where)
