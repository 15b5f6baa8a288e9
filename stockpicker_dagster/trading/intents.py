"""Order intents: what an execution committed to, and what the broker has said of each since.

An intent is written before the broker hears of it, under an id that follows from the proposal, and is never changed.
What the broker says is kept beside it. An intent of which it has said nothing is `unknown`, which is neither rejected
nor flat. A next attempt at the same order exists only once the one before has ended at the broker.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, Engine, bindparam, func, insert, select, update

from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.brokers import TERMINAL, BrokerOrder
from stockpicker_dagster.trading.canonical import canonical_bytes, digest
from stockpicker_dagster.trading.locks import Lock
from stockpicker_dagster.trading.proposal import ProposedOrder, StoredProposal

UNKNOWN = "unknown"
"""The status of an order that was committed to and of which the broker has not said anything yet."""

HALTED = "halted"
"""How the reason of an order begins that was cancelled by a halt, and may be tried again after it."""

MOST_ATTEMPTS = 5

Key = tuple[str, str, int]
"""An order within its proposal: symbol, phase, slice."""

# Statements of every order of a basket are built once: building one takes longer than running it.
_INTENTS, _TOLD = ledger.order_intents, ledger.broker_orders
_ATTEMPTS = (
    select(
        _INTENTS.c.id,
        _INTENTS.c.symbol,
        _INTENTS.c.phase,
        _INTENTS.c.slice,
        _INTENTS.c.attempt,
        _INTENTS.c.quantity,
        _INTENTS.c.created_at,
        _TOLD.c.status,
        _TOLD.c.filled_quantity,
        _TOLD.c.reason,
        _TOLD.c.updated_at,
        _TOLD.c.sent_again_at,
    )
    .select_from(_INTENTS.outerjoin(_TOLD, _INTENTS.c.id == _TOLD.c.intent))
    .where(_INTENTS.c.proposal == bindparam("proposal"))
    .order_by(_INTENTS.c.attempt, _INTENTS.c.created_at)
)
_SENT_SINCE = (
    select(func.count())
    .select_from(_INTENTS)
    .where(_INTENTS.c.account == bindparam("account"), _INTENTS.c.created_at > bindparam("moment"))
)
_SAID = select(_TOLD.c.status, _TOLD.c.filled_quantity, _TOLD.c.reason).where(_TOLD.c.intent == bindparam("of"))
_SAY = insert(_TOLD)
_SENT_AGAIN = update(_TOLD).where(_TOLD.c.intent == bindparam("of"))
_SAY_AGAIN = update(_TOLD).where(_TOLD.c.intent == bindparam("of"))


def intent_id(account: str, proposal_digest: str, symbol: str, phase: str, slice_: int, attempt: int) -> str:
    """The id of an order's intent, which is its client id at the broker: the same order always has the same."""
    return "sp-" + digest(canonical_bytes([account, proposal_digest, symbol, phase, slice_, attempt]))[:40]


def key_of(order: ProposedOrder) -> Key:
    """Which order of its proposal this is."""
    return order.symbol, order.phase, order.slice


@dataclass(frozen=True)
class Attempt:
    """One attempt at an order: the intent, and what the broker last said of it.

    `status` is the broker's, or `unknown`; `filled` in shares, positive; `sent_at` when it was last handed to the
    broker or was about to be.
    """

    id: str
    key: Key
    attempt: int
    quantity: Decimal
    status: str
    filled: Decimal
    reason: str
    sent_at: datetime

    @property
    def ended(self) -> bool:
        """Whether nothing more can happen to it."""
        return self.status in TERMINAL

    @property
    def may_be_tried_again(self) -> bool:
        """Whether a halt ended it before it was filled, and not too often."""
        by_halt = self.status == "cancelled" and self.reason.startswith(HALTED)
        return by_halt and self.filled < self.quantity and self.attempt < MOST_ATTEMPTS


def attempts(connection: Connection, proposal: str) -> list[Attempt]:
    """Every attempt at every order of the proposal, an earlier one before a later one.

    By their numbers, not their times: a clock that was set back would make an old attempt the newest, and the live one
    would be lost sight of.
    """
    return [
        Attempt(
            id=row.id,
            key=(row.symbol, row.phase, row.slice),
            attempt=row.attempt,
            quantity=row.quantity,
            status=row.status or UNKNOWN,
            filled=row.filled_quantity or ledger.ZERO,
            reason=row.reason or "",
            sent_at=row.sent_again_at or (row.updated_at if row.status == UNKNOWN else row.created_at),
        )
        for row in connection.execute(_ATTEMPTS, {"proposal": proposal})
    ]


def commit(
    connection: Connection,
    found: StoredProposal,
    order: ProposedOrder,
    quantity: Decimal,
    attempt: int,
    lock: Lock,
    now: datetime,
) -> str:
    """Commits to one attempt, in the caller's transaction, which holds the account and has checked the lock."""
    document = found.document
    identity = intent_id(document.account, found.digest, order.symbol, order.phase, order.slice, attempt)
    connection.execute(
        insert(ledger.order_intents).values(
            id=identity,
            account=document.account,
            proposal=found.id,
            symbol=order.symbol,
            side=order.side,
            quantity=quantity,
            phase=order.phase,
            slice=order.slice,
            attempt=attempt,
            created_at=now,
            order_type=order.order_type,
            time_in_force=order.time_in_force,
            limit_price=order.limit_price,
            fencing=lock.fencing,
        )
    )
    return identity


def mark_sent_again(connection: Connection, intent: str, now: datetime) -> None:
    """Notes that an unknown order is about to be handed to the broker once more, under the same id."""
    _record(connection, BrokerOrder(intent, "", UNKNOWN, ledger.ZERO, "sent again"), now)  # type: ignore[arg-type]
    connection.execute(_SENT_AGAIN, {"of": intent, "sent_again_at": now})


def record(connection: Connection, answers: Iterable[BrokerOrder], now: datetime) -> None:
    """Enters what the broker said of orders; the caller holds the account and has checked the lock.

    What has ended stays ended: a late answer from before does not bring an order back to life.
    """
    for answer in answers:
        _record(connection, answer, now)


def sent_since(engine: Engine, account: str, moment: datetime) -> int:
    """How many orders the account has committed to since `moment`."""
    with engine.connect() as connection:
        return connection.execute(_SENT_SINCE, {"account": account, "moment": moment}).scalar_one()


def _record(connection: Connection, answer: BrokerOrder, now: datetime) -> None:
    before = connection.execute(_SAID, {"of": answer.client_order_id}).one_or_none()
    reason = answer.reason
    if before is not None:
        if before.status in TERMINAL:
            return
        # Who asked for a cancellation is known here; the broker, confirming it later, does not say.
        if before.reason.startswith(HALTED) and answer.status in ("cancelled", "working"):
            reason = before.reason
    said = {
        "broker_order": answer.broker_order_id,
        "status": answer.status,
        "filled_quantity": answer.filled_quantity,
        "reason": reason,
        "updated_at": now,
    }
    if before is None:
        connection.execute(_SAY, {"intent": answer.client_order_id, **said})
    else:
        connection.execute(_SAY_AGAIN, {"of": answer.client_order_id, **said})
