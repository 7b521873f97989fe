"""Circuit breakers that are not closed, or have failures on record."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "breakers",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("window_started_at", sa.BigInteger(), nullable=True),
        sa.Column("trips", sa.Integer(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=True),
        sa.Column("open_until", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("tripped_by_hand", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("let_through", sa.Text(), nullable=False),
        sa.CheckConstraint("state IN ('closed', 'open', 'half_open')", name=op.f("ck_breakers_state")),
        sa.CheckConstraint("state = 'closed' OR opened_at IS NOT NULL", name=op.f("ck_breakers_open_has_moment")),
        sa.PrimaryKeyConstraint("name"),
        sqlite_with_rowid=False,
    )
