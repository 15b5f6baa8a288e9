"""What was sent and what came back: intents, orders, fills and shortfall of an execution, from the ledger."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Row, select

from stockpicker_dagster.components.origins import day_prices
from stockpicker_dagster.console.views.desk import Desk
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.proposal import StoredProposal, read_proposal, state_of, states_of
from stockpicker_dagster.trading.shortfall import Shortfall
from stockpicker_dagster.trading.shortfall import shortfall as implementation_shortfall
from stockpicker_dagster.trading.trader_reports import trader_of

ZERO = Decimal(0)
_BPS = Decimal(10_000)


@dataclass(frozen=True)
class ExecutionLine:
    """An execution in a list."""

    proposal: str
    account: str
    strategy: str
    session: date
    state: str
    detail: str
    claimed_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True)
class SentOrder:
    """One intent with what the broker said of it; `status` is `unknown` until the broker has answered."""

    symbol: str
    side: str
    phase: str
    quantity: Decimal
    filled: Decimal
    price: Decimal | None
    """The mean fill price, in currency; None without a fill."""
    reference_price: Decimal | None
    shortfall_bps: Decimal | None
    """What filling cost against the reference price, in basis points of it: positive is worse."""
    commission: Decimal
    status: str
    reason: str
    updated_at: datetime


@dataclass(frozen=True)
class ExecutionView:
    """One execution, as far as it has come."""

    line: ExecutionLine
    orders: Sequence[SentOrder]
    ordered: int
    """Orders in the approved proposal."""
    shortfall: Decimal
    """What all fills cost against their reference prices, in currency, commission included."""
    implementation: Shortfall | None
    """The implementation shortfall, order by order; None until the prices of the session traded in are stored."""
    books: str
    """What the account's trader says of itself and of its books; empty where the account has none."""

    @property
    def under_way(self) -> bool:
        """Whether more may still come."""
        return self.line.state == "executing"

    @property
    def terminal(self) -> int:
        """Orders that can change no more."""
        return sum(order.status not in ("unknown", "working", "accepted", "partial", "open") for order in self.orders)


def executions(desk: Desk, strategy: str | None = None, most: int = 100) -> list[ExecutionLine]:
    """The newest executions, of one strategy or of all."""
    done, table = ledger.executions, ledger.proposals
    wanted = (
        select(done, table.c.account, table.c.strategy, table.c.session)
        .join(table, table.c.id == done.c.proposal)
        .order_by(done.c.claimed_at.desc())
        .limit(most)
    )
    if strategy is not None:
        wanted = wanted.where(table.c.strategy == strategy)
    with desk.database.connect() as connection:
        rows = connection.execute(wanted).all()
        states = states_of(connection, [row.proposal for row in rows])
    return [_line(row, states[row.proposal]) for row in rows]


def execution(desk: Desk, reference: str) -> ExecutionView | None:
    """The execution of a proposal; None where it was never claimed. Raises `UnknownProposal`."""
    done, intents, said = ledger.executions, ledger.order_intents, ledger.broker_orders
    with desk.database.connect() as connection:
        stored = read_proposal(connection, reference)
        row = connection.execute(select(done).where(done.c.proposal == stored.id)).one_or_none()
        if row is None:
            return None
        state = state_of(connection, stored.id)
        sent = connection.execute(
            select(intents, said.c.status, said.c.reason, said.c.filled_quantity, said.c.updated_at)
            .join(said, said.c.intent == intents.c.id, isouter=True)
            .where(intents.c.proposal == stored.id)
            .order_by(intents.c.phase.desc(), intents.c.slice, intents.c.symbol, intents.c.attempt)
        ).all()
        filled = connection.execute(
            select(ledger.fills)
            .join(intents, intents.c.id == ledger.fills.c.intent)
            .where(intents.c.proposal == stored.id)
        ).all()
    document = stored.document
    by_intent: dict[str, list[tuple[Decimal, Decimal, Decimal]]] = {}
    for fill in filled:
        by_intent.setdefault(fill.intent, []).append((abs(fill.quantity), fill.price, fill.commission))
    references = {order.symbol: order.reference_price for order in document.orders}
    orders = [_sent(each, by_intent.get(each.id, []), references.get(each.symbol)) for each in sent]
    line = ExecutionLine(
        stored.id,
        document.account,
        document.strategy,
        document.session,
        state,
        row.detail,
        row.claimed_at,
        row.ended_at,
    )
    shortfall = sum(
        (
            order.shortfall_bps * order.filled * order.reference_price / _BPS + order.commission
            for order in orders
            if order.shortfall_bps is not None and order.reference_price is not None
        ),
        ZERO,
    )
    trader = trader_of(desk.database, document.account)
    books = trader.sentence(desk.now()) if trader else ""
    return ExecutionView(line, orders, len(document.orders), shortfall, _implementation(desk, stored), books)


def _implementation(desk: Desk, stored: StoredProposal) -> Shortfall | None:
    """Known the next morning, as a rule; where the strategy or its prices are gone, it is not known any more."""
    document, form = stored.document, desk.forms().get(stored.document.strategy)
    if form is None or document.trade_session not in desk.days(f"{form.prices.key}/prices"):
        return None
    symbols = [order.symbol for order in document.orders]
    prices = day_prices(desk.lake, form, document.trade_session, symbols)
    return None if prices is None else implementation_shortfall(desk.database, stored.id, prices)


def _line(row: Row[Any], state: str) -> ExecutionLine:
    return ExecutionLine(
        row.proposal, row.account, row.strategy, row.session, state, row.detail, row.claimed_at, row.ended_at
    )


def _sent(row: Row[Any], fills: Sequence[tuple[Decimal, Decimal, Decimal]], reference: Decimal | None) -> SentOrder:
    filled = sum((quantity for quantity, _, _ in fills), ZERO)
    price = sum((quantity * each for quantity, each, _ in fills), ZERO) / filled if filled else None
    side: str = row.side
    against = None
    if price is not None and reference:
        sign = 1 if side in ("buy", "cover") else -1
        against = sign * (price - reference) / reference * _BPS
    return SentOrder(
        symbol=row.symbol,
        side=side,
        phase=row.phase,
        quantity=row.quantity,
        filled=filled,
        price=price,
        reference_price=reference,
        shortfall_bps=against,
        commission=sum((each for _, _, each in fills), ZERO),
        status=row.status or "unknown",
        reason=row.reason or "",
        updated_at=row.updated_at or row.created_at,
    )
