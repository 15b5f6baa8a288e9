"""The trials: every back-test that was looked at, so that a verdict can say how many it is the best of.

Written out in full rather than taken from `evaluation.trials`, so that what an old database gets never changes. A trial
is never deleted, by trigger: forgetting one would make the others look better than they are.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the table and the trigger that keeps its rows."""
    op.create_table(
        "trials",
        sa.Column("strategy_digest", sa.String(length=16), nullable=False),
        sa.Column("universe", sa.String(length=256), nullable=False),
        sa.Column("first_session", sa.Date(), nullable=False),
        sa.Column("last_session", sa.Date(), nullable=False),
        sa.Column("sessions", sa.Integer(), nullable=False),
        sa.Column("sharpe", sa.Float(precision=53), nullable=True),
        sa.Column("strategy", sa.String(length=64), nullable=False),
        sa.Column("logged_at", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("strategy_digest", "universe", "first_session", name=op.f("pk_trials")),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE TRIGGER trials_are_kept BEFORE DELETE OR TRUNCATE ON trials "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    else:
        op.execute(
            "CREATE TRIGGER trials_no_delete BEFORE DELETE ON trials "
            "BEGIN SELECT RAISE(ABORT, 'trials is append-only'); END"
        )
