"""The ledger: accounts, proposals and their decisions, orders and fills, and the paper broker's books.

Written out in full rather than taken from `trading.ledger`, so that what an old database gets never changes. Decimals
and instants are text. Tables whose history matters refuse changes and deletions by trigger.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = (
    "proposals",
    "decisions",
    "outcomes",
    "order_intents",
    "fills",
    "corporate_actions",
    "cash_movements",
    "paper_fills",
)


def upgrade() -> None:
    """Creates every table, the counter of outcomes and the triggers."""
    _create_tables()
    counters = sa.table("counters", sa.column("name", sa.String), sa.column("value", sa.Integer))
    op.bulk_insert(counters, [{"name": "outcomes", "value": 0}])
    if op.get_bind().dialect.name == "postgresql":
        _forbid_changes_postgresql()
    else:
        _forbid_changes_sqlite()


def _forbid_changes_sqlite() -> None:
    for table in APPEND_ONLY:
        for action in ("UPDATE", "DELETE"):
            trigger = sa.DDL(
                "CREATE TRIGGER %(protected)s_no_%(action)s BEFORE %(action)s ON %(protected)s "
                "BEGIN SELECT RAISE(ABORT, '%(protected)s is append-only'); END",
                context={"protected": table, "action": action},
            )
            op.execute(trigger)


def _forbid_changes_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
    )
    for table in APPEND_ONLY:
        trigger = sa.DDL(
            "CREATE TRIGGER %(protected)s_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %(protected)s "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
            context={"protected": table},
        )
        op.execute(trigger)


def _create_tables() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("broker", sa.String(length=32), nullable=False),
        sa.Column("mode", sa.String(length=8), nullable=False),
        sa.Column("base_url", sa.String(length=256), nullable=False),
        sa.Column("approvals_needed", sa.Integer(), nullable=False),
        sa.Column("four_eyes", sa.Boolean(), nullable=False),
        sa.Column("limits", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("costs", sa.Text(), nullable=False),
        sa.Column("strategy", sa.String(length=64), nullable=True),
        sa.Column("cash", sa.String(64), nullable=False),
        sa.Column("booked_through", sa.Date(), nullable=True),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.CheckConstraint("mode IN ('paper', 'live')", name=op.f("ck_accounts_mode")),
        sa.CheckConstraint("approvals_needed >= 1", name=op.f("ck_accounts_approvals")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
    )
    op.create_table(
        "counters",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("value", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
    )
    op.create_table(
        "cash_movements",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("reference", sa.String(length=128), nullable=False),
        sa.Column("amount", sa.String(64), nullable=False),
        sa.Column("recorded_at", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name=op.f("fk_cash_movements_account")),
        sa.PrimaryKeyConstraint("account", "reference", name=op.f("pk_cash_movements")),
    )
    op.create_table(
        "corporate_actions",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("session", sa.Date(), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("quantity_change", sa.String(64), nullable=False),
        sa.Column("cash", sa.String(64), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name=op.f("fk_corporate_actions_account")),
        sa.PrimaryKeyConstraint("account", "session", "symbol", "kind", name=op.f("pk_corporate_actions")),
    )
    op.create_table(
        "halts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=True),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("halted_at", sa.String(32), nullable=False),
        sa.Column("resumed_by", sa.String(length=128), nullable=True),
        sa.Column("resumed_at", sa.String(32), nullable=True),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name=op.f("fk_halts_account")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_halts")),
    )
    op.create_table(
        "paper_accounts",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("cash", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name=op.f("fk_paper_accounts_account")),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_paper_accounts")),
    )
    op.create_table(
        "positions",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("quantity", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name=op.f("fk_positions_account")),
        sa.PrimaryKeyConstraint("account", "symbol", name=op.f("pk_positions")),
    )
    op.create_table(
        "proposals",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("content", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("strategy", sa.String(length=64), nullable=False),
        sa.Column("session", sa.Date(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("expires_at", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name=op.f("fk_proposals_account")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proposals")),
        sa.UniqueConstraint("digest", name=op.f("uq_proposals_digest")),
    )
    op.create_index(op.f("ix_proposals_account"), "proposals", ["account"], unique=False)
    op.create_table(
        "decisions",
        sa.Column("proposal", sa.String(length=12), nullable=False),
        sa.Column("person", sa.String(length=128), nullable=False),
        sa.Column("decision", sa.String(length=8), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.String(32), nullable=False),
        sa.CheckConstraint("decision IN ('approve', 'deny')", name=op.f("ck_decisions_decision")),
        sa.ForeignKeyConstraint(["proposal"], ["proposals.id"], name=op.f("fk_decisions_proposal")),
        sa.PrimaryKeyConstraint("proposal", "person", name=op.f("pk_decisions")),
    )
    op.create_table(
        "executions",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("proposal", sa.String(length=12), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("claimed_at", sa.String(32), nullable=False),
        sa.Column("ended_at", sa.String(32), nullable=True),
        sa.CheckConstraint("status IN ('claimed', 'finished', 'aborted', 'lapsed')", name=op.f("ck_executions_status")),
        sa.ForeignKeyConstraint(["digest"], ["proposals.digest"], name=op.f("fk_executions_digest")),
        sa.ForeignKeyConstraint(["proposal"], ["proposals.id"], name=op.f("fk_executions_proposal")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_executions")),
        sa.UniqueConstraint("proposal", name=op.f("uq_executions_proposal")),
    )
    op.create_table(
        "open_proposals",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("proposal", sa.String(length=12), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name=op.f("fk_open_proposals_account")),
        sa.ForeignKeyConstraint(["proposal"], ["proposals.id"], name=op.f("fk_open_proposals_proposal")),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_open_proposals")),
        sa.UniqueConstraint("proposal", name=op.f("uq_open_proposals_proposal")),
    )
    op.create_table(
        "order_intents",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("proposal", sa.String(length=12), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("side", sa.String(length=8), nullable=False),
        sa.Column("quantity", sa.String(64), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("slice", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.CheckConstraint("phase IN ('reductions', 'openings')", name=op.f("ck_order_intents_phase")),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name=op.f("fk_order_intents_account")),
        sa.ForeignKeyConstraint(["proposal"], ["proposals.id"], name=op.f("fk_order_intents_proposal")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_order_intents")),
        sa.UniqueConstraint(
            "proposal",
            "symbol",
            "phase",
            "slice",
            "attempt",
            name=op.f("uq_order_intents_proposal_symbol_phase_slice_attempt"),
        ),
    )
    op.create_index(op.f("ix_order_intents_proposal"), "order_intents", ["proposal"], unique=False)
    op.create_table(
        "outcomes",
        sa.Column("proposal", sa.String(length=12), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.String(32), nullable=False),
        sa.CheckConstraint(
            "outcome IN ('approved', 'denied', 'expired', 'superseded')", name=op.f("ck_outcomes_outcome")
        ),
        sa.ForeignKeyConstraint(["proposal"], ["proposals.id"], name=op.f("fk_outcomes_proposal")),
        sa.PrimaryKeyConstraint("proposal", name=op.f("pk_outcomes")),
        sa.UniqueConstraint("sequence", name=op.f("uq_outcomes_sequence")),
    )
    op.create_table(
        "paper_orders",
        sa.Column("client_order_id", sa.String(length=128), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("side", sa.String(length=8), nullable=False),
        sa.Column("quantity", sa.String(64), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("collar_low", sa.String(64), nullable=True),
        sa.Column("collar_high", sa.String(64), nullable=True),
        sa.Column("trade_session", sa.Date(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("filled_quantity", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("submitted_at", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["paper_accounts.account"], name=op.f("fk_paper_orders_account")),
        sa.PrimaryKeyConstraint("client_order_id", name=op.f("pk_paper_orders")),
    )
    op.create_index(op.f("ix_paper_orders_account"), "paper_orders", ["account"], unique=False)
    op.create_table(
        "paper_positions",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("quantity", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["paper_accounts.account"], name=op.f("fk_paper_positions_account")),
        sa.PrimaryKeyConstraint("account", "symbol", name=op.f("pk_paper_positions")),
    )
    op.create_table(
        "broker_orders",
        sa.Column("intent", sa.String(length=64), nullable=False),
        sa.Column("broker_order", sa.String(length=128), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("filled_quantity", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(["intent"], ["order_intents.id"], name=op.f("fk_broker_orders_intent")),
        sa.PrimaryKeyConstraint("intent", name=op.f("pk_broker_orders")),
    )
    op.create_table(
        "fills",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("fill_id", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("intent", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("quantity", sa.String(64), nullable=False),
        sa.Column("price", sa.String(64), nullable=False),
        sa.Column("commission", sa.String(64), nullable=False),
        sa.Column("session", sa.Date(), nullable=False),
        sa.Column("filled_at", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name=op.f("fk_fills_account")),
        sa.ForeignKeyConstraint(["intent"], ["order_intents.id"], name=op.f("fk_fills_intent")),
        sa.PrimaryKeyConstraint("account", "fill_id", name=op.f("pk_fills")),
        sa.UniqueConstraint("account", "sequence", name=op.f("uq_fills_account_sequence")),
    )
    op.create_index(op.f("ix_fills_intent"), "fills", ["intent"], unique=False)
    op.create_table(
        "paper_fills",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("client_order_id", sa.String(length=128), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("quantity", sa.String(64), nullable=False),
        sa.Column("price", sa.String(64), nullable=False),
        sa.Column("commission", sa.String(64), nullable=False),
        sa.Column("session", sa.Date(), nullable=False),
        sa.Column("filled_at", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["paper_accounts.account"], name=op.f("fk_paper_fills_account")),
        sa.ForeignKeyConstraint(
            ["client_order_id"], ["paper_orders.client_order_id"], name=op.f("fk_paper_fills_client_order_id")
        ),
        sa.PrimaryKeyConstraint("account", "sequence", name=op.f("pk_paper_fills")),
    )
