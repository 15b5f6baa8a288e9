"""The tables of the ledger, and the few writes that several rooms of trading share.

Uniqueness constraints carry the invariants: one outcome for a proposal, one decision for a person, one open proposal
for an account, one execution for a digest, one intent for an order. History is append-only, held by triggers in the
database itself. Who may decide, and what is sent, is decided elsewhere; here it is only remembered.

Money, prices and share counts are exact decimals; shares are signed (short is negative); times are UTC.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Date,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    delete,
    false,
    func,
    insert,
    select,
    update,
)

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.storage.database import ExactDecimal, UtcTime

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

ZERO = Decimal(0)

accounts = Table(
    "accounts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("broker", String(32), nullable=False),
    Column("mode", String(8), nullable=False),
    Column("base_url", String(256), nullable=False),
    Column("approvals_needed", Integer, nullable=False),
    Column("four_eyes", Boolean, nullable=False),
    Column("limits", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("costs", Text, nullable=False),
    Column("strategy", String(64)),
    Column("cash", ExactDecimal, nullable=False),
    Column("booked_through", Date),
    Column("created_at", UtcTime, nullable=False),
    Column("broker_account", String(64)),
    Column("live_enabled", Boolean, nullable=False, server_default=false()),
    Column("allowed_strategies", Text),
    CheckConstraint("mode IN ('paper', 'live')", name="mode"),
    CheckConstraint("approvals_needed >= 1", name="approvals"),
)
"""`limits`, `policy`, `costs` and `allowed_strategies` are JSON; null strategies: any may trade."""

account_changes = Table(
    "account_changes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("account", ForeignKey("accounts.id"), nullable=False),
    Column("who", String(128), nullable=False),
    Column("what", Text, nullable=False),
    Column("changed_at", UtcTime, nullable=False),
)

equity_marks = Table(
    "equity_marks",
    metadata,
    Column("account", ForeignKey("accounts.id"), primary_key=True),
    Column("session", Date, primary_key=True),
    Column("equity", ExactDecimal, nullable=False),
    Column("marked_at", UtcTime, nullable=False),
)
"""What an account was worth when a session was first traded in: the start that a daily loss is measured from."""

execution_locks = Table(
    "execution_locks",
    metadata,
    Column("account", ForeignKey("accounts.id"), primary_key=True),
    Column("fencing", Integer, nullable=False),
    Column("owner", String(128), nullable=False),
    Column("taken_at", UtcTime, nullable=False),
    Column("renewed_at", UtcTime, nullable=False),
)
"""Who sends for an account. `fencing` rises with every taking; what carries a lower number is refused."""

proposals = Table(
    "proposals",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("content", String(64), nullable=False),
    Column("account", ForeignKey("accounts.id"), nullable=False, index=True),
    Column("strategy", String(64), nullable=False),
    Column("session", Date, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
)

open_proposals = Table(
    "open_proposals",
    metadata,
    Column("account", ForeignKey("accounts.id"), primary_key=True),
    Column("proposal", ForeignKey("proposals.id"), nullable=False, unique=True),
)
"""The proposal that holds an account, from its registration until it is denied, expires, is superseded or its execution
ends: the primary key is what allows one only."""

decisions = Table(
    "decisions",
    metadata,
    Column("proposal", ForeignKey("proposals.id"), primary_key=True),
    Column("person", String(128), primary_key=True),
    Column("decision", String(8), nullable=False),
    Column("reason", Text, nullable=False),
    Column("decided_at", UtcTime, nullable=False),
    Column("method", String(16)),
    Column("key", String(64)),
    Column("signature", Text),
    CheckConstraint("decision IN ('approve', 'deny')", name="decision"),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("proposal", ForeignKey("proposals.id"), primary_key=True),
    Column("sequence", Integer, nullable=False, unique=True),
    Column(
        "outcome",
        String(16),
        nullable=False,
    ),
    Column("detail", Text, nullable=False),
    Column("recorded_at", UtcTime, nullable=False),
    CheckConstraint("outcome IN ('approved', 'denied', 'expired', 'superseded')", name="outcome"),
)

counters = Table(
    "counters",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", Integer, nullable=False),
)
"""Numbers handed out in the order of commits. A sequence of PostgreSQL is not: a reader past 8 could miss a late 7."""

executions = Table(
    "executions",
    metadata,
    Column("digest", ForeignKey("proposals.digest"), primary_key=True),
    Column("proposal", ForeignKey("proposals.id"), nullable=False, unique=True),
    Column(
        "status",
        String(16),
        nullable=False,
    ),
    Column("detail", Text, nullable=False),
    Column("claimed_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    CheckConstraint("status IN ('claimed', 'finished', 'aborted', 'lapsed')", name="status"),
)

order_intents = Table(
    "order_intents",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("account", ForeignKey("accounts.id"), nullable=False),
    Column("proposal", ForeignKey("proposals.id"), nullable=False, index=True),
    Column("symbol", String(32), nullable=False),
    Column("side", String(8), nullable=False),
    Column("quantity", ExactDecimal, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("slice", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("order_type", String(16)),
    Column("time_in_force", String(8)),
    Column("limit_price", ExactDecimal),
    Column("fencing", Integer),
    UniqueConstraint("proposal", "symbol", "phase", "slice", "attempt"),
    CheckConstraint("phase IN ('reductions', 'openings')", name="phase"),
)

broker_orders = Table(
    "broker_orders",
    metadata,
    Column("intent", ForeignKey("order_intents.id"), primary_key=True),
    Column("broker_order", String(128)),
    Column("status", String(16), nullable=False),
    Column("filled_quantity", ExactDecimal, nullable=False),
    Column("reason", Text, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("sent_again_at", UtcTime),
)
"""What the broker last said of an intent. An intent without a row here is unknown until the broker is asked.

`sent_again_at` is when it was last handed over once more under its id; null where it never was."""

fills = Table(
    "fills",
    metadata,
    Column("account", ForeignKey("accounts.id"), primary_key=True),
    Column("fill_id", String(64), primary_key=True),
    Column("sequence", Integer, nullable=False),
    Column("intent", ForeignKey("order_intents.id"), nullable=False, index=True),
    Column("symbol", String(32), nullable=False),
    Column("quantity", ExactDecimal, nullable=False),
    Column("price", ExactDecimal, nullable=False),
    Column("commission", ExactDecimal, nullable=False),
    Column("session", Date, nullable=False),
    Column("filled_at", UtcTime, nullable=False),
    UniqueConstraint("account", "sequence"),
)
"""`sequence` counts an account's fills in the order in which the ledger learnt of them."""

corporate_actions = Table(
    "corporate_actions",
    metadata,
    Column("account", ForeignKey("accounts.id"), primary_key=True),
    Column("session", Date, primary_key=True),
    Column("symbol", String(32), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("quantity_change", ExactDecimal, nullable=False),
    Column("cash", ExactDecimal, nullable=False),
    Column("detail", Text, nullable=False),
    Column("recorded_at", UtcTime, nullable=False),
)

cash_movements = Table(
    "cash_movements",
    metadata,
    Column("account", ForeignKey("accounts.id"), primary_key=True),
    Column("reference", String(128), primary_key=True),
    Column("amount", ExactDecimal, nullable=False),
    Column("recorded_at", UtcTime, nullable=False),
)

positions = Table(
    "positions",
    metadata,
    Column("account", ForeignKey("accounts.id"), primary_key=True),
    Column("symbol", String(32), primary_key=True),
    Column("quantity", ExactDecimal, nullable=False),
)

halts = Table(
    "halts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("account", ForeignKey("accounts.id")),
    Column("who", String(128), nullable=False),
    Column("reason", Text, nullable=False),
    Column("halted_at", UtcTime, nullable=False),
    Column("resumed_by", String(128)),
    Column("resumed_at", UtcTime),
)
"""A halt without an account holds for all; one without `resumed_at` is in force."""

paper_accounts = Table(
    "paper_accounts",
    metadata,
    Column("account", ForeignKey("accounts.id"), primary_key=True),
    Column("cash", ExactDecimal, nullable=False),
)
"""From here on, the paper broker's own books: a broker that happens to be kept in the same database."""

paper_positions = Table(
    "paper_positions",
    metadata,
    Column("account", ForeignKey("paper_accounts.account"), primary_key=True),
    Column("symbol", String(32), primary_key=True),
    Column("quantity", ExactDecimal, nullable=False),
)

paper_orders = Table(
    "paper_orders",
    metadata,
    Column("client_order_id", String(128), primary_key=True),
    Column("account", ForeignKey("paper_accounts.account"), nullable=False, index=True),
    Column("symbol", String(32), nullable=False),
    Column("side", String(8), nullable=False),
    Column("quantity", ExactDecimal, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("collar_low", ExactDecimal),
    Column("collar_high", ExactDecimal),
    Column("trade_session", Date, nullable=False),
    Column("status", String(16), nullable=False),
    Column("filled_quantity", ExactDecimal, nullable=False),
    Column("reason", Text, nullable=False),
    Column("submitted_at", UtcTime, nullable=False),
    Column("order_type", String(16)),
    Column("time_in_force", String(8)),
    Column("limit_price", ExactDecimal),
)

paper_fills = Table(
    "paper_fills",
    metadata,
    Column("account", ForeignKey("paper_accounts.account"), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("client_order_id", ForeignKey("paper_orders.client_order_id"), nullable=False),
    Column("symbol", String(32), nullable=False),
    Column("quantity", ExactDecimal, nullable=False),
    Column("price", ExactDecimal, nullable=False),
    Column("commission", ExactDecimal, nullable=False),
    Column("session", Date, nullable=False),
    Column("filled_at", UtcTime, nullable=False),
)

ticket_orders = Table(
    "ticket_orders",
    metadata,
    Column("client_order_id", String(128), primary_key=True),
    Column("account", ForeignKey("accounts.id"), nullable=False, index=True),
    Column("symbol", String(32), nullable=False),
    Column("side", String(8), nullable=False),
    Column("quantity", ExactDecimal, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("order_type", String(16), nullable=False),
    Column("time_in_force", String(8), nullable=False),
    Column("limit_price", ExactDecimal),
    Column("collar_low", ExactDecimal),
    Column("collar_high", ExactDecimal),
    Column("trade_session", Date, nullable=False),
    Column("status", String(16), nullable=False),
    Column("filled_quantity", ExactDecimal, nullable=False),
    Column("reason", Text, nullable=False),
    Column("submitted_at", UtcTime, nullable=False),
    Column("exported_at", UtcTime),
)
"""Orders that a person places by hand where a broker has no interface for them."""

ticket_fills = Table(
    "ticket_fills",
    metadata,
    Column("account", ForeignKey("accounts.id"), primary_key=True),
    Column("fill_id", String(64), primary_key=True),
    Column("sequence", Integer, nullable=False),
    Column("client_order_id", ForeignKey("ticket_orders.client_order_id"), nullable=False),
    Column("symbol", String(32), nullable=False),
    Column("quantity", ExactDecimal, nullable=False),
    Column("price", ExactDecimal, nullable=False),
    Column("commission", ExactDecimal, nullable=False),
    Column("session", Date, nullable=False),
    Column("filled_at", UtcTime, nullable=False),
    Column("imported_by", String(128), nullable=False),
    UniqueConstraint("account", "sequence"),
)

ticket_statements = Table(
    "ticket_statements",
    metadata,
    Column("account", ForeignKey("accounts.id"), primary_key=True),
    Column("cash", ExactDecimal, nullable=False),
    Column("positions", Text, nullable=False),
    Column("stated_by", String(128), nullable=False),
    Column("stated_at", UtcTime, nullable=False),
)
"""What a person last read off the broker's own pages; `positions` is JSON of signed shares by symbol."""

tickers = Table(
    "tickers",
    metadata,
    Column("account", ForeignKey("accounts.id"), primary_key=True),
    Column("security", String(32), primary_key=True),
    Column("told_at", UtcTime, primary_key=True),
    Column("ticker", String(32), nullable=False),
)
"""What the account's broker calls a security whose ticker is not its id; the newest row counts."""

traders = Table(
    "traders",
    metadata,
    Column("account", ForeignKey("accounts.id"), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("fencing", Integer, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("seen_at", UtcTime, nullable=False),
    Column("state", Text, nullable=False),
    Column("problem", Text, nullable=False),
    Column("reconciled_at", UtcTime),
)
"""What the trader process of an account last said of itself; `problem` is empty while there is none."""

notice_targets = Table(
    "notice_targets",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("url", Text, nullable=False),
    Column("kinds", Text),
    Column("created_by", String(128), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("disabled_at", UtcTime),
)
"""Where notices go; `url` holds a secret, `kinds` is a JSON list of what is sent there (null: everything)."""

outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String(128), nullable=False),
    Column("target", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("proposal", String(12)),
    Column("subject", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("last_error", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("due_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime),
    Column("sent_at", UtcTime),
    UniqueConstraint("key", "target"),
    CheckConstraint("status IN ('waiting', 'sending', 'sent', 'failed', 'expired')", name="status"),
    Index(None, "status", "due_at"),
)
"""Notices to be sent, written in the transaction that gives rise to them; one `key` goes to one target once."""

APPEND_ONLY = (
    "proposals",
    "decisions",
    "outcomes",
    "order_intents",
    "fills",
    "corporate_actions",
    "cash_movements",
    "paper_fills",
    "account_changes",
    "equity_marks",
    "ticket_fills",
    "tickers",
)
"""The tables whose rows the database itself refuses to change or delete."""


# Statements of every order and fill are built once: building one takes longer than running it.
_LOCK_ACCOUNT = select(accounts.c.id).where(accounts.c.id == bindparam("account")).with_for_update()
_HELD = select(positions.c.symbol, positions.c.quantity).where(positions.c.account == bindparam("account"))
_LAST_FILL = (
    select(fills.c.fill_id).where(fills.c.account == bindparam("account")).order_by(fills.c.sequence.desc()).limit(1)
)
_OWN_INTENTS = select(order_intents.c.id, order_intents.c.symbol).where(
    order_intents.c.account == bindparam("account"), order_intents.c.id.in_(bindparam("named", expanding=True))
)
_FILLS_KNOWN = select(fills.c.fill_id).where(
    fills.c.account == bindparam("account"), fills.c.fill_id.in_(bindparam("named", expanding=True))
)
_LAST_SEQUENCE = select(func.max(fills.c.sequence)).where(fills.c.account == bindparam("account"))
_CASH = select(accounts.c.cash).where(accounts.c.id == bindparam("of"))
_SET_CASH = update(accounts).where(accounts.c.id == bindparam("of"))
_POSITIONS = {
    book.name: (
        select(book.c.symbol, book.c.quantity).where(book.c.account == bindparam("of")),
        update(book).where(book.c.account == bindparam("of"), book.c.symbol == bindparam("named")),
    )
    for book in (positions, paper_positions)
}


class UnknownAccount(InvalidInput):
    """No trading account has this id."""


@dataclass(frozen=True)
class Fill:
    """Shares that changed hands at the broker, as the broker reports them.

    `fill_id` is the broker's own name for it, unique within the account; `quantity` is signed, in shares; `price` and
    `commission` are in currency; `session` is the trading day.
    """

    fill_id: str
    client_order_id: str
    symbol: str
    quantity: Decimal
    price: Decimal
    commission: Decimal
    session: date
    filled_at: datetime

    @property
    def cash(self) -> Decimal:
        """The effect on cash: what a sale brings or a purchase costs, less the commission."""
        return -self.quantity * self.price - self.commission


def lock_account(connection: Connection, account: str) -> None:
    """Makes this transaction the only one that changes `account`, until it ends; raises `UnknownAccount`.

    A row lock on PostgreSQL; on SQLite the write transaction itself is the lock.
    """
    if connection.execute(_LOCK_ACCOUNT, {"account": account}).one_or_none() is None:
        known = ", ".join(connection.execute(select(accounts.c.id).order_by(accounts.c.id)).scalars()) or "none yet"
        raise UnknownAccount(f"there is no account {account!r}; known accounts: {known}")


def record_outcome(connection: Connection, proposal: str, outcome: str, detail: str, now: datetime) -> None:
    """Writes the one outcome of `proposal`, numbered in commit order; anything but `approved` frees its account."""
    taken = connection.execute(
        update(counters).where(counters.c.name == "outcomes").values(value=counters.c.value + 1)
    ).rowcount
    if taken != 1:
        raise StockPickerError("the ledger's counter of outcomes is missing; run the migrations")
    sequence = connection.execute(select(counters.c.value).where(counters.c.name == "outcomes")).scalar_one()
    connection.execute(
        insert(outcomes).values(proposal=proposal, sequence=sequence, outcome=outcome, detail=detail, recorded_at=now)
    )
    if outcome != "approved":
        release_account(connection, proposal)


def release_account(connection: Connection, proposal: str) -> None:
    """Lets a next proposal be registered on the account that `proposal` holds.

    An execution that has not ended, and had to make way for a flattening, takes its account back.
    """
    if connection.execute(delete(open_proposals).where(open_proposals.c.proposal == proposal)).rowcount != 1:
        return
    account = connection.execute(select(proposals.c.account).where(proposals.c.id == proposal)).scalar_one()
    claimed = (
        select(executions.c.proposal)
        .join(proposals, executions.c.proposal == proposals.c.id)
        .where(proposals.c.account == account, executions.c.status == "claimed", proposals.c.id != proposal)
    )
    suspended = connection.execute(claimed.limit(1)).scalar_one_or_none()
    if suspended is not None:
        connection.execute(insert(open_proposals).values(account=account, proposal=suspended))


def holds_account(connection: Connection, proposal: str) -> bool:
    """Whether `proposal` is the one that holds its account."""
    held = select(open_proposals.c.proposal).where(open_proposals.c.proposal == proposal)
    return connection.execute(held).one_or_none() is not None


def held_quantities(connection: Connection, account: str) -> dict[str, Decimal]:
    """The account's positions in the ledger, in signed shares by symbol, without zeros."""
    rows = connection.execute(_HELD, {"account": account})
    return {symbol: quantity for symbol, quantity in sorted(tuple(row) for row in rows) if quantity}


def record_fills(connection: Connection, account: str, reported: Iterable[Fill], now: datetime) -> int:
    """Enters fills that the ledger does not have yet, with their effect on position and cash; says how many.

    The caller holds the account's lock. A fill that is delivered twice is entered once. Fills of orders that are not
    this account's own are left out: what others did there is for `reconciliation` to find.
    """
    delivered = list(reported)
    named = [fill.fill_id for fill in delivered]
    known = set(connection.execute(_FILLS_KNOWN, {"account": account, "named": named}).scalars())
    own = own_intents(connection, account, [fill.client_order_id for fill in delivered])
    fresh = [
        # Whatever the broker calls the security by now, it is the one that was ordered.
        replace(fill, symbol=own[fill.client_order_id])
        for fill in delivered
        if fill.fill_id not in known and fill.client_order_id in own
    ]
    last = connection.execute(_LAST_SEQUENCE, {"account": account}).scalar_one() or 0
    for sequence, fill in enumerate(fresh, start=last + 1):
        connection.execute(
            insert(fills).values(
                account=account,
                fill_id=fill.fill_id,
                sequence=sequence,
                intent=fill.client_order_id,
                symbol=fill.symbol,
                quantity=fill.quantity,
                price=fill.price,
                commission=fill.commission,
                session=fill.session,
                filled_at=fill.filled_at,
            )
        )
        move_cash(connection, account, f"fill {fill.fill_id}", fill.cash, now)
    move_positions(connection, positions, account, [(fill.symbol, fill.quantity) for fill in fresh])
    return len(fresh)


def own_intents(connection: Connection, account: str, client_order_ids: Iterable[str]) -> dict[str, str]:
    """Which of these client ids are intents of the account, each with the symbol that was ordered."""
    named = sorted(set(client_order_ids))
    return {row.id: row.symbol for row in connection.execute(_OWN_INTENTS, {"account": account, "named": named})}


def last_fill(connection: Connection, account: str) -> str | None:
    """The broker's id of the last fill in the ledger, None before the first: from where to go on asking the broker."""
    return connection.execute(_LAST_FILL, {"account": account}).scalar_one_or_none()


def move_cash(connection: Connection, account: str, reference: str, amount: Decimal, now: datetime) -> None:
    """Enters one movement of cash and the new balance; the same reference twice violates the primary key."""
    connection.execute(
        insert(cash_movements).values(account=account, reference=reference, amount=amount, recorded_at=now)
    )
    balance = connection.execute(_CASH, {"of": account}).scalar_one()
    connection.execute(_SET_CASH, {"of": account, "cash": balance + amount})


def move_positions(connection: Connection, book: Table, account: str, changes: Iterable[tuple[str, Decimal]]) -> None:
    """Adds signed share counts to the running positions in `book` (the ledger's or the paper broker's)."""
    reading, changing = _POSITIONS[book.name]
    rows = connection.execute(reading, {"of": account})
    before: Mapping[str, Decimal] = {row.symbol: row.quantity for row in rows}
    after: dict[str, Decimal] = {}
    for symbol, change in changes:
        after[symbol] = after.get(symbol, before.get(symbol, ZERO)) + change
    for symbol, quantity in after.items():
        if symbol in before:
            connection.execute(changing, {"of": account, "named": symbol, "quantity": quantity})
        else:
            connection.execute(insert(book).values(account=account, symbol=symbol, quantity=quantity))
