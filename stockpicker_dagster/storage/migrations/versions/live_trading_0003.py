"""Live trading: people and how they sign in, accounts as an administrator sets them, locks, notices, tickets.

Written out in full rather than taken from the tables' own modules, so that what an old database gets never changes.
Decimals and instants are text. Tables whose history matters refuse changes and deletions by trigger.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

APPEND_ONLY = ("account_changes", "equity_marks", "people_changes", "ticket_fills")


def upgrade() -> None:
    """Adds the tables, the columns of existing ones, and the triggers."""
    _extend_accounts()
    _extend_orders()
    _create_people()
    _create_notices()
    _create_tickets()
    for table in APPEND_ONLY:
        _forbid_changes(table)


def _extend_accounts() -> None:
    op.add_column("accounts", sa.Column("broker_account", sa.String(length=64), nullable=True))
    op.add_column("accounts", sa.Column("live_enabled", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("accounts", sa.Column("allowed_strategies", sa.Text(), nullable=True))
    op.create_table(
        "account_changes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name=op.f("fk_account_changes_account")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account_changes")),
    )
    op.create_table(
        "equity_marks",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("session", sa.Date(), nullable=False),
        sa.Column("equity", sa.String(64), nullable=False),
        sa.Column("marked_at", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name=op.f("fk_equity_marks_account")),
        sa.PrimaryKeyConstraint("account", "session", name=op.f("pk_equity_marks")),
    )
    op.create_table(
        "execution_locks",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("fencing", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("taken_at", sa.String(32), nullable=False),
        sa.Column("renewed_at", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name=op.f("fk_execution_locks_account")),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_execution_locks")),
    )


def _extend_orders() -> None:
    op.add_column("decisions", sa.Column("method", sa.String(length=16), nullable=True))
    op.add_column("decisions", sa.Column("key", sa.String(length=64), nullable=True))
    op.add_column("decisions", sa.Column("signature", sa.Text(), nullable=True))
    op.add_column("order_intents", sa.Column("order_type", sa.String(length=16), nullable=True))
    op.add_column("order_intents", sa.Column("time_in_force", sa.String(length=8), nullable=True))
    op.add_column("order_intents", sa.Column("limit_price", sa.String(64), nullable=True))
    op.add_column("order_intents", sa.Column("fencing", sa.Integer(), nullable=True))
    op.add_column("paper_orders", sa.Column("order_type", sa.String(length=16), nullable=True))
    op.add_column("paper_orders", sa.Column("time_in_force", sa.String(length=8), nullable=True))
    op.add_column("paper_orders", sa.Column("limit_price", sa.String(64), nullable=True))


def _create_people() -> None:
    op.create_table(
        "people",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("totp_secret", sa.String(length=64), nullable=True),
        sa.Column("totp_last_step", sa.Integer(), nullable=True),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("disabled_at", sa.String(32), nullable=True),
        sa.CheckConstraint(
            "role IN ('viewer', 'researcher', 'approver', 'administrator')", name=op.f("ck_people_role")
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_people")),
    )
    op.create_table(
        "people_changes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(["person"], ["people.name"], name=op.f("fk_people_changes_person")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_people_changes")),
    )
    op.create_table(
        "sign_in_attempts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("origin", sa.String(length=64), nullable=False),
        sa.Column("succeeded", sa.Boolean(), nullable=False),
        sa.Column("attempted_at", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_in_attempts")),
    )
    op.create_index(
        op.f("ix_sign_in_attempts_person_attempted_at"), "sign_in_attempts", ["person", "attempted_at"], unique=False
    )
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("label", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("expires_at", sa.String(32), nullable=False),
        sa.Column("revoked_at", sa.String(32), nullable=True),
        sa.Column("used_at", sa.String(32), nullable=True),
        sa.ForeignKeyConstraint(["person"], ["people.name"], name=op.f("fk_api_tokens_person")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_api_tokens_secret_hash")),
    )
    op.create_table(
        "sessions",
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("seen_at", sa.String(32), nullable=False),
        sa.Column("fresh_at", sa.String(32), nullable=False),
        sa.Column("expires_at", sa.String(32), nullable=False),
        sa.Column("ended_at", sa.String(32), nullable=True),
        sa.ForeignKeyConstraint(["person"], ["people.name"], name=op.f("fk_sessions_person")),
        sa.PrimaryKeyConstraint("secret_hash", name=op.f("pk_sessions")),
    )
    op.create_index(op.f("ix_sessions_person"), "sessions", ["person"], unique=False)


def _create_notices() -> None:
    op.create_table(
        "notice_targets",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("kinds", sa.Text(), nullable=True),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("disabled_at", sa.String(32), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_notice_targets")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("target", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("proposal", sa.String(length=12), nullable=True),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("due_at", sa.String(32), nullable=False),
        sa.Column("expires_at", sa.String(32), nullable=True),
        sa.Column("sent_at", sa.String(32), nullable=True),
        sa.CheckConstraint(
            "status IN ('waiting', 'sending', 'sent', 'failed', 'expired')", name=op.f("ck_outbox_status")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("key", "target", name=op.f("uq_outbox_key_target")),
    )
    op.create_index(op.f("ix_outbox_status_due_at"), "outbox", ["status", "due_at"], unique=False)


def _create_tickets() -> None:
    op.create_table(
        "ticket_orders",
        sa.Column("client_order_id", sa.String(length=128), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("side", sa.String(length=8), nullable=False),
        sa.Column("quantity", sa.String(64), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("order_type", sa.String(length=16), nullable=False),
        sa.Column("time_in_force", sa.String(length=8), nullable=False),
        sa.Column("limit_price", sa.String(64), nullable=True),
        sa.Column("collar_low", sa.String(64), nullable=True),
        sa.Column("collar_high", sa.String(64), nullable=True),
        sa.Column("trade_session", sa.Date(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("filled_quantity", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("submitted_at", sa.String(32), nullable=False),
        sa.Column("exported_at", sa.String(32), nullable=True),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name=op.f("fk_ticket_orders_account")),
        sa.PrimaryKeyConstraint("client_order_id", name=op.f("pk_ticket_orders")),
    )
    op.create_index(op.f("ix_ticket_orders_account"), "ticket_orders", ["account"], unique=False)
    op.create_table(
        "ticket_fills",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("fill_id", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("client_order_id", sa.String(length=128), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("quantity", sa.String(64), nullable=False),
        sa.Column("price", sa.String(64), nullable=False),
        sa.Column("commission", sa.String(64), nullable=False),
        sa.Column("session", sa.Date(), nullable=False),
        sa.Column("filled_at", sa.String(32), nullable=False),
        sa.Column("imported_by", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name=op.f("fk_ticket_fills_account")),
        sa.ForeignKeyConstraint(
            ["client_order_id"], ["ticket_orders.client_order_id"], name=op.f("fk_ticket_fills_client_order_id")
        ),
        sa.PrimaryKeyConstraint("account", "fill_id", name=op.f("pk_ticket_fills")),
        sa.UniqueConstraint("account", "sequence", name=op.f("uq_ticket_fills_account_sequence")),
    )
    op.create_table(
        "ticket_statements",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("cash", sa.String(64), nullable=False),
        sa.Column("positions", sa.Text(), nullable=False),
        sa.Column("stated_by", sa.String(length=128), nullable=False),
        sa.Column("stated_at", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name=op.f("fk_ticket_statements_account")),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_ticket_statements")),
    )


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
