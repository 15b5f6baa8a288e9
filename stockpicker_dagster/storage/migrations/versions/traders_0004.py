"""Trader processes say how they are, and brokers may call securities by other names than their ids.

Written out in full rather than taken from the tables' own module, so that what an old database gets never changes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds both tables, and the triggers that keep the history of tickers."""
    op.create_table(
        "tickers",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("security", sa.String(length=32), nullable=False),
        sa.Column("told_at", sa.String(32), nullable=False),
        sa.Column("ticker", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name=op.f("fk_tickers_account")),
        sa.PrimaryKeyConstraint("account", "security", "told_at", name=op.f("pk_tickers")),
    )
    op.create_table(
        "traders",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("fencing", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.String(32), nullable=False),
        sa.Column("seen_at", sa.String(32), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("reconciled_at", sa.String(32), nullable=True),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name=op.f("fk_traders_account")),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_traders")),
    )
    _forbid_changes("tickers")


def _forbid_changes(table: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            sa.DDL(
                "CREATE TRIGGER %(protected)s_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %(protected)s "
                "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
                context={"protected": table},
            )
        )
        return
    for action in ("UPDATE", "DELETE"):
        op.execute(
            sa.DDL(
                "CREATE TRIGGER %(protected)s_no_%(action)s BEFORE %(action)s ON %(protected)s "
                "BEGIN SELECT RAISE(ABORT, '%(protected)s is append-only'); END",
                context={"protected": table, "action": action},
            )
        )
