"""An order that was handed over again under its id says when: its time to be filled counts from there.

Written out in full rather than taken from the tables' own module, so that what an old database gets never changes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column; null is an order that was handed over once at most."""
    op.add_column("broker_orders", sa.Column("sent_again_at", sa.String(32), nullable=True))
