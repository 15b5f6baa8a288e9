"""Implementation shortfall: what it cost to turn a decision into a position, order by order.

After Perold, "The implementation shortfall: paper versus reality" (1988): a paper portfolio trades everything at once,
for nothing, at the price that the decision was made on. What the real one is behind it at the end of the trading
session is the shortfall, split into waiting until the market could be reached (`delay`), trading (`trading`), what was
not traded (`opportunity`) and fees. With side s (+1 for buys and covers), decision price d, arrival price a (the open),
mean fill price p, closing price c, F shares filled of Q:

    delay = s F (a - d)    trading = s F (p - a)    opportunity = s (Q - F) (c - d)    total = their sum + fees

Positive is a cost. Pure: the prices are handed in; the orders come from the ledger.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, select

from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.proposal import ProposedOrder, read_proposal

ZERO = Decimal(0)
BPS = Decimal(10_000)


@dataclass(frozen=True)
class DayPrices:
    """A symbol's prices on the session traded in, in currency as traded; None where it did not trade.

    `adjustment` is that session's, as in the price table: what was decided at the close before is divided by it, so
    that a dividend or split on the day is no cost of trading.
    """

    open: Decimal | None
    close: Decimal | None
    adjustment: Decimal = Decimal(1)


@dataclass(frozen=True)
class OrderShortfall:
    """What one approved order cost, in currency, and what it was measured on.

    `delay` and `trading` are None where the open is not known or nothing filled: what filling cost is then all in
    `filling`. `opportunity` is None where something was not filled and the close is not known; the total leaves it out.
    `decision` is the decision price on the session's own basis. Known after the close of the session traded in.
    """

    symbol: str
    side: str
    phase: str
    quantity: Decimal
    filled: Decimal
    decision: Decimal
    arrival: Decimal | None
    price: Decimal | None
    delay: Decimal | None
    trading: Decimal | None
    filling: Decimal
    opportunity: Decimal | None
    fees: Decimal

    @property
    def total(self) -> Decimal:
        """Everything that is known of it."""
        return self.filling + (self.opportunity or ZERO) + self.fees

    @property
    def complete(self) -> bool:
        """Whether everything is known."""
        return self.opportunity is not None

    @property
    def bps(self) -> Decimal:
        """The total in basis points of what was decided on."""
        return self.total / (self.quantity * self.decision) * BPS


@dataclass(frozen=True)
class Shortfall:
    """The shortfall of one executed proposal, and its sums in currency over all orders."""

    proposal: str
    account: str
    strategy: str
    trade_session: date
    orders: tuple[OrderShortfall, ...]

    @property
    def notional(self) -> Decimal:
        """What was decided on, at decision prices."""
        return sum((order.quantity * order.decision for order in self.orders), ZERO)

    @property
    def total(self) -> Decimal:
        """What is known of all orders."""
        return sum((order.total for order in self.orders), ZERO)

    @property
    def bps(self) -> Decimal | None:
        """The total in basis points of what was decided on; None without orders."""
        return self.total / self.notional * BPS if self.notional else None

    def summed(self, part: str) -> Decimal:
        """One part (`delay`, `trading`, `filling`, `opportunity`, `fees`) over the orders for which it is known."""
        return sum((getattr(order, part) or ZERO for order in self.orders), ZERO)


def shortfall(engine: Engine, reference: str, prices: Mapping[str, DayPrices]) -> Shortfall:
    """The shortfall of a proposal's orders on `prices` of the session that it trades in.

    An order that was never sent counts with all its shares as not traded. Raises `UnknownProposal`.
    """
    intents, fills = ledger.order_intents, ledger.fills
    with engine.connect() as connection:
        stored = read_proposal(connection, reference)
        rows = connection.execute(
            select(
                intents.c.symbol, intents.c.phase, intents.c.slice, fills.c.quantity, fills.c.price, fills.c.commission
            )
            .join(fills, fills.c.intent == intents.c.id)
            .where(intents.c.proposal == stored.id)
        ).all()
    parts: dict[tuple[str, str, int], list[Any]] = {}
    for row in rows:
        parts.setdefault((row.symbol, row.phase, row.slice), []).append(row)
    document = stored.document
    orders = [
        order_shortfall(
            order, parts.get((order.symbol, order.phase, order.slice), ()), prices.get(order.symbol, _NOT_TRADED)
        )
        for order in document.orders
    ]
    return Shortfall(stored.id, document.account, document.strategy, document.trade_session, tuple(orders))


_NOT_TRADED = DayPrices(None, None)


def order_shortfall(order: ProposedOrder, fills: Sequence[Any], prices: DayPrices) -> OrderShortfall:
    """One order's shortfall; `fills` have `quantity` in shares, `price` and `commission` in currency."""
    sign = 1 if order.side in ("buy", "cover") else -1
    decision = order.reference_price / prices.adjustment
    filled = sum((abs(fill.quantity) for fill in fills), ZERO)
    paid = sum((abs(fill.quantity) * fill.price for fill in fills), ZERO)
    delay = trading = None
    if filled and prices.open is not None:
        delay = sign * filled * (prices.open - decision)
        trading = sign * (paid - filled * prices.open)
    left = order.quantity - filled
    opportunity: Decimal | None = ZERO
    if left:
        opportunity = None if prices.close is None else sign * left * (prices.close - decision)
    return OrderShortfall(
        symbol=order.symbol,
        side=order.side,
        phase=order.phase,
        quantity=order.quantity,
        filled=filled,
        decision=decision,
        arrival=prices.open,
        price=paid / filled if filled else None,
        delay=delay,
        trading=trading,
        filling=sign * (paid - filled * decision),
        opportunity=opportunity,
        fees=sum((fill.commission for fill in fills), ZERO),
    )
