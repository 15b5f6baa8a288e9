"""Why do we hold this? From a position back over its fills to orders, decisions, proposal, model and data versions.

Everything here is read from the ledger and from the proposals' own bytes, whose digests are verified on the way; the
strategy, its lake and Dagster are not asked, so that the answer stays the same when they have changed. What the model
saw on that day is in the lake, found by strategy, session and symbol.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Engine, Row, select

from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.accounts import read_account
from stockpicker_dagster.trading.proposal import ProposalDocument, State, read_proposal

ZERO = Decimal(0)


@dataclass(frozen=True)
class AuditedFill:
    """Shares that changed hands: `quantity` signed, `price` and `commission` in currency, `fill_id` the broker's."""

    fill_id: str
    quantity: Decimal
    price: Decimal
    commission: Decimal
    session: date
    filled_at: datetime


@dataclass(frozen=True)
class AuditedAction:
    """A corporate action that changed shares (signed) or cash (in currency)."""

    session: date
    kind: str
    quantity_change: Decimal
    cash: Decimal
    detail: str


@dataclass(frozen=True)
class AuditedDecision:
    """Who decided what, when and why; `method` says how the person had proved who it is, `signed` with a key or not."""

    person: str
    decision: str
    reason: str
    method: str
    decided_at: datetime
    signed: bool


@dataclass(frozen=True)
class AuditedOrder:
    """One order as it was committed to: `quantity` in shares, positive; `status` `unknown` until the broker said one.

    `intent` is the client id at the broker, `fencing` the number of the process that committed to it.
    """

    intent: str
    broker_order: str
    side: str
    phase: str
    slice: int
    attempt: int
    quantity: Decimal
    status: str
    reason: str
    fencing: int | None
    committed_at: datetime
    fills: tuple[AuditedFill, ...]


@dataclass(frozen=True)
class AuditedProposal:
    """The proposal behind orders: what was wanted of the symbol, what it rested on, and who decided.

    `target` is the signed weight of equity (None: not a target, so it was closed), `reference_price` the close that it
    was sized on, in currency. `run` is the Dagster run that made the plan, empty where the document does not say; its
    partition is `session`.
    """

    id: str
    digest: str
    state: State
    strategy: str
    author: str
    session: date
    trade_session: date
    target: Decimal | None
    reference_price: Decimal | None
    model_id: str
    data_version: str
    code_version: str
    run: str
    created_at: datetime
    decisions: tuple[AuditedDecision, ...]
    orders: tuple[AuditedOrder, ...]


@dataclass(frozen=True)
class HeldBecause:
    """Why an account holds `quantity` shares (signed) of a symbol: what made the position since it was last flat.

    `proposals` are the newest first. Fills and actions add up to `quantity`; where they do not, somebody changed the
    ledger, and `adds_up` is false.
    """

    account: str
    symbol: str
    quantity: Decimal
    proposals: tuple[AuditedProposal, ...]
    actions: tuple[AuditedAction, ...]
    adds_up: bool


def why_held(engine: Engine, account: str, symbol: str, *, everything: bool = False) -> HeldBecause:
    """What led to the account's position in `symbol`; with `everything`, what was traded before it was last flat too.

    Raises `ledger.UnknownAccount`, and `DigestMismatch` where a proposal's bytes are not those that were decided on.
    """
    with engine.connect() as connection:
        read_account(connection, account)
        held = ledger.held_quantities(connection, account).get(symbol, ZERO)
        fills, actions = _fills(connection, account, symbol), _actions(connection, account, symbol)
        moves = sum((row.quantity for row in fills), ZERO) + sum((row.quantity_change for row in actions), ZERO)
        since = 0 if everything else _since_flat(fills, actions)
        counted = [row for row in fills if row.sequence >= since]
        first = min((row.session for row in counted), default=None)
        proposals = _proposals(connection, symbol, counted)
    return HeldBecause(
        account=account,
        symbol=symbol,
        quantity=held,
        proposals=proposals,
        actions=tuple(
            AuditedAction(row.session, row.kind, row.quantity_change, row.cash, row.detail)
            for row in actions
            if first is None or row.session >= first
        ),
        adds_up=moves == held,
    )


def _fills(connection: Connection, account: str, symbol: str) -> Sequence[Row[Any]]:
    table = ledger.fills
    wanted = select(table).where(table.c.account == account, table.c.symbol == symbol).order_by(table.c.sequence)
    return connection.execute(wanted).all()


def _actions(connection: Connection, account: str, symbol: str) -> Sequence[Row[Any]]:
    table = ledger.corporate_actions
    wanted = select(table).where(table.c.account == account, table.c.symbol == symbol).order_by(table.c.session)
    return connection.execute(wanted).all()


def _since_flat(fills: Sequence[Row[Any]], actions: Sequence[Row[Any]]) -> int:
    """The number of the first fill after the position was last flat; an action counts before its session's fills."""
    moves = [(row.session, 0, 0, row.quantity_change) for row in actions]
    moves += [(row.session, 1, row.sequence, row.quantity) for row in fills]
    held, since = ZERO, 0
    for _, _, sequence, change in sorted(moves, key=lambda move: move[:3]):
        if not held and sequence:
            since = sequence
        held += change
    return since


def _proposals(connection: Connection, symbol: str, fills: Sequence[Row[Any]]) -> tuple[AuditedProposal, ...]:
    intents, told = ledger.order_intents, ledger.broker_orders
    by_intent: dict[str, list[AuditedFill]] = {}
    for row in fills:
        fill = AuditedFill(row.fill_id, row.quantity, row.price, row.commission, row.session, row.filled_at)
        by_intent.setdefault(row.intent, []).append(fill)
    concerned = select(intents.c.proposal).where(intents.c.id.in_(list(by_intent)))
    rows = connection.execute(
        select(intents, told.c.broker_order, told.c.status, told.c.reason)
        .select_from(intents.outerjoin(told, told.c.intent == intents.c.id))
        .where(intents.c.symbol == symbol, intents.c.proposal.in_(concerned))
        .order_by(intents.c.phase.desc(), intents.c.slice, intents.c.attempt)
    ).all()
    orders: dict[str, list[AuditedOrder]] = {}
    for row in rows:
        orders.setdefault(row.proposal, []).append(_order(row, tuple(by_intent.get(row.id, ()))))
    found = [_proposal(connection, identity, symbol, tuple(sent)) for identity, sent in orders.items()]
    return tuple(sorted(found, key=lambda each: (each.session, each.created_at), reverse=True))


def _order(row: Row[Any], fills: tuple[AuditedFill, ...]) -> AuditedOrder:
    return AuditedOrder(
        intent=row.id,
        broker_order=row.broker_order or "",
        side=row.side,
        phase=row.phase,
        slice=row.slice,
        attempt=row.attempt,
        quantity=row.quantity,
        status=row.status or "unknown",
        reason=row.reason or "",
        fencing=row.fencing,
        committed_at=row.created_at,
        fills=fills,
    )


def _proposal(connection: Connection, identity: str, symbol: str, orders: tuple[AuditedOrder, ...]) -> AuditedProposal:
    stored = read_proposal(connection, identity)
    document: ProposalDocument = stored.document
    table = ledger.decisions
    decisions = connection.execute(select(table).where(table.c.proposal == identity).order_by(table.c.decided_at))
    return AuditedProposal(
        id=stored.id,
        digest=stored.digest,
        state=stored.state,
        strategy=document.strategy,
        author=document.author,
        session=document.session,
        trade_session=document.trade_session,
        target=document.targets.get(symbol),
        reference_price=document.prices.get(symbol),
        model_id=document.model_id,
        data_version=document.data_version,
        code_version=document.code_version,
        run=document.run,
        created_at=document.created_at,
        decisions=tuple(
            AuditedDecision(
                row.person, row.decision, row.reason, row.method or "", row.decided_at, row.signature is not None
            )
            for row in decisions
        ),
        orders=orders,
    )
