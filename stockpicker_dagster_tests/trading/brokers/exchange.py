"""An invented market with one margin account: what the loopback servers of real brokers have behind them.

It keeps orders, fills, positions and cash as a broker does, refuses what American brokers refuse (a sale of more than
is held, a flip from long to short in one order, opposite open orders, shorts in fractions or of what cannot be
borrowed, too little buying power, auction orders after their cut-off), and stands still until a test moves it.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import NAMESPACE_URL, uuid5
from zoneinfo import ZoneInfo

from stockpicker_dagster.market.calendar import trading_calendar

NEW_YORK = ZoneInfo("America/New_York")
ZERO = Decimal(0)
MONDAY, TUESDAY = date(2024, 3, 4), date(2024, 3, 5)
EVENING = datetime(2024, 3, 5, 1, 15, tzinfo=UTC)
"""20:15 in New York on Monday: orders are for Tuesday."""


class Refused(Exception):
    """The broker's refusal, with Alpaca's numbers, which others translate."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass
class HeldOrder:
    """An order in the market's own books."""

    id: str
    client_id: str
    symbol: str
    side: str
    quantity: Decimal
    kind: str
    tif: str
    limit: Decimal | None
    submitted_at: datetime
    status: str = "accepted"
    filled: Decimal = ZERO
    paid: Decimal = ZERO
    reason: str = ""
    updated_at: datetime = EVENING
    replaced_by: str | None = None
    number: int = 0

    @property
    def open(self) -> bool:
        return self.status in ("accepted", "new", "partially_filled", "pending_cancel", "held")

    @property
    def rest(self) -> Decimal:
        return self.quantity - self.filled

    @property
    def sign(self) -> int:
        return 1 if self.side == "buy" else -1


@dataclass
class Execution:
    """Shares that changed hands."""

    id: str
    order: HeldOrder
    quantity: Decimal
    price: Decimal
    at: datetime
    cumulated: Decimal = ZERO


@dataclass
class Exchange:
    """The market and the account. `unique_for`: how long a client id stays taken (None: for ever)."""

    now: datetime = EVENING
    cash: Decimal = Decimal(1_000_000)
    prices: dict[str, Decimal] = field(default_factory=lambda: {s: Decimal(50) for s in ("AAA", "BBB", "BRK-B", "CCC")})
    unique_for: timedelta | None = None
    positions: dict[str, Decimal] = field(default_factory=dict)
    orders: list[HeldOrder] = field(default_factory=list)
    fills: list[Execution] = field(default_factory=list)
    movements: list[dict[str, Any]] = field(default_factory=list)
    halted: set[str] = field(default_factory=set)
    no_borrow: set[str] = field(default_factory=set)
    hard_to_borrow: set[str] = field(default_factory=set)
    refuse: Callable[[str], str | None] = lambda symbol: None
    multiplier: Decimal = Decimal(2)
    instant: bool = True
    """Whether an order that comes while the market is open fills at once; else when a test says so."""

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.calendar = trading_calendar("XNYS")

    # -- what a test asks ---------------------------------------------------------------------------------------------

    def by_client_id(self, client_id: str) -> HeldOrder | None:
        known = [order for order in self.orders if order.client_id == client_id]
        return known[-1] if known else None

    def by_id(self, identity: str) -> HeldOrder | None:
        return next((order for order in self.orders if order.id == identity), None)

    def equity(self) -> Decimal:
        return self.cash + sum((self.prices[s] * q for s, q in self.positions.items()), ZERO)

    def buying_power(self) -> Decimal:
        gross = sum((abs(q) * self.prices[s] for s, q in self.positions.items()), ZERO)
        reserved = sum((self.need(o.symbol, o.side, o.rest, o.limit) for o in self.orders if o.open), ZERO)
        return max(self.equity() * self.multiplier - gross - reserved, ZERO)

    def need(self, symbol: str, side: str, quantity: Decimal, limit: Decimal | None) -> Decimal:
        held = self.positions.get(symbol, ZERO)
        if (side == "buy" and held < 0) or (side == "sell" and held > 0):
            return ZERO
        price = self.prices.get(symbol, ZERO)
        if side == "sell":
            return max(limit or ZERO, price * Decimal("1.03")) * quantity
        return (limit or price) * quantity

    def is_open(self) -> bool:
        session = self.now.astimezone(NEW_YORK).date()
        if not self.calendar.is_session(session):
            return False
        return self.calendar.open_at(session) <= self.now < self.calendar.close_at(session)

    # -- what the broker does -----------------------------------------------------------------------------------------

    def place(
        self,
        client_id: str,
        symbol: str,
        side: str,
        quantity: Decimal,
        kind: str,
        tif: str,
        limit: Decimal | None = None,
    ) -> HeldOrder:
        with self.lock:
            self._refuse(client_id, symbol, side, quantity, kind, tif, limit)
            number = len(self.orders) + 1
            order = HeldOrder(
                str(uuid5(NAMESPACE_URL, f"order {number}")),
                client_id,
                symbol,
                side,
                quantity,
                kind,
                tif,
                limit,
                self.now,
                updated_at=self.now,
                number=number,
            )
            self.orders.append(order)
            if self.instant and self.is_open() and tif in ("day", "ioc") and symbol not in self.halted:
                self.fill(order)
                if tif == "ioc" and order.open:
                    self._end(order, "canceled")
            return order

    def cancel(self, identity: str) -> HeldOrder:
        with self.lock:
            order = self.by_id(identity)
            if order is None:
                raise Refused(404, 40410000, f"order not found for {identity}")
            if not order.open:
                raise Refused(422, 42210000, f'order is already in "{order.status}" state')
            return self._end(order, "canceled")

    def replace(self, identity: str, quantity: Decimal) -> HeldOrder:
        """What somebody does on the broker's own pages: the order lives on under another id."""
        with self.lock:
            order = self.by_id(identity)
            assert order is not None
            assert order.open
            self._end(order, "replaced")
            after = self.place(f"web-{order.number}", order.symbol, order.side, quantity, order.kind, order.tif)
            order.replaced_by = after.id
            return after

    # -- what a test does ---------------------------------------------------------------------------------------------

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)

    def at(self, day: date, hour: int, minute: int = 0) -> None:
        """Sets the clock to a time of New York."""
        self.now = datetime.combine(day, time(hour, minute), NEW_YORK).astimezone(UTC)

    def open_session(self, session: date = TUESDAY, prices: Mapping[str, object] | None = None) -> None:
        """The open: auction and day orders fill at it; what is left of auction orders ends."""
        with self.lock:
            self.now = self.calendar.open_at(session)
            self.prices.update({s: Decimal(str(p)) for s, p in (prices or {}).items()})
            for order in [order for order in self.orders if order.open and order.tif in ("opg", "day")]:
                if order.symbol not in self.halted:
                    self.fill(order)
                if order.open and order.tif == "opg":
                    self._end(order, "expired")

    def close_session(self, session: date = TUESDAY) -> None:
        """The close: closing orders fill, everything else of the day ends."""
        with self.lock:
            self.now = self.calendar.close_at(session)
            for order in [order for order in self.orders if order.open]:
                if order.tif == "cls" and order.symbol not in self.halted:
                    self.fill(order)
                if order.open:
                    self._end(order, "expired")

    def fill(self, order: HeldOrder, quantity: object = None, price: object = None) -> Execution | None:
        """Fills some of an order, all of what is left by default, if its limit allows."""
        with self.lock:
            paid = Decimal(str(price)) if price is not None else self.prices[order.symbol]
            if order.limit is not None and (paid - order.limit) * order.sign > 0:
                return None
            shares = min(order.rest, order.rest if quantity is None else Decimal(str(quantity)))
            number = len(self.fills) + 1
            order.filled += shares
            order.paid += shares * paid
            stamp = self.now.strftime("%Y%m%d%H%M%S") + f"{number % 1000:03d}"
            done = Execution(
                f"{stamp}::{uuid5(NAMESPACE_URL, f'fill {number}')}", order, shares, paid, self.now, order.filled
            )
            self.fills.append(done)
            order.status = "filled" if not order.rest else "partially_filled"
            order.updated_at = self.now
            held = self.positions.get(order.symbol, ZERO) + order.sign * shares
            self.positions[order.symbol] = held
            if not held:
                del self.positions[order.symbol]
            self.cash -= order.sign * shares * paid
            return done

    def reject(self, order: HeldOrder, reason: str) -> None:
        """The venue sends an accepted order back."""
        order.reason = reason
        self._end(order, "rejected")

    def split(self, symbol: str, ratio: object) -> None:
        """A split over night."""
        with self.lock:
            before = self.positions[symbol]
            self.positions[symbol] = before * Decimal(str(ratio))
            self.prices[symbol] /= Decimal(str(ratio))
            self.movements.append(
                {"kind": "SPLIT", "symbol": symbol, "quantity": self.positions[symbol] - before, "cash": ZERO}
            )

    def dividend(self, symbol: str, per_share: object) -> None:
        with self.lock:
            shares = self.positions[symbol]
            cash = shares * Decimal(str(per_share))
            self.cash += cash
            self.movements.append({"kind": "DIV", "symbol": symbol, "quantity": shares, "cash": cash})

    def _end(self, order: HeldOrder, status: str) -> HeldOrder:
        order.status, order.updated_at = status, self.now
        return order

    def _refuse(
        self, client_id: str, symbol: str, side: str, quantity: Decimal, kind: str, tif: str, limit: Decimal | None
    ) -> None:
        known = self.by_client_id(client_id)
        if known and (self.unique_for is None or self.now - known.submitted_at < self.unique_for):
            raise Refused(422, 40010001, "client_order_id must be unique")
        if symbol not in self.prices:
            raise Refused(422, 42210000, f'asset "{symbol}" not found')
        if (why := self.refuse(symbol)) is not None:
            raise Refused(403, 40310000, why)
        if quantity <= 0:
            raise Refused(422, 40010001, "qty must be > 0")
        if quantity != quantity.to_integral_value() and (kind, tif) != ("market", "day"):
            raise Refused(422, 42210000, "fractional orders must be DAY orders")
        if (kind == "limit") != (limit is not None):
            raise Refused(422, 40010001, "limit orders require limit price")
        self._refuse_late(tif)
        self._refuse_position(symbol, side, quantity)
        if self.need(symbol, side, quantity, limit) > self.buying_power():
            raise Refused(403, 40310000, "insufficient buying power")

    def _refuse_late(self, tif: str) -> None:
        here = self.now.astimezone(NEW_YORK)
        if tif not in ("opg", "cls") or not self.calendar.is_session(here.date()):
            return
        anchor = self.calendar.open_at(here.date()) if tif == "opg" else self.calendar.close_at(here.date())
        last = anchor - timedelta(minutes=2 if tif == "opg" else 10)
        if last <= self.now and here.time() < time(19):
            raise Refused(422, 42210000, f"{tif} orders cannot be submitted now")

    def _refuse_position(self, symbol: str, side: str, quantity: Decimal) -> None:
        held = self.positions.get(symbol, ZERO)
        working = [order for order in self.orders if order.open and order.symbol == symbol]
        if any(order.side != side for order in working):
            raise Refused(403, 40310000, "potential wash trade detected: opposite side order exists")
        same = sum((order.rest for order in working), ZERO)
        if side == "sell" and held > 0 and quantity > held - same:
            raise Refused(403, 40310000, f"insufficient qty available for order (available: {held - same})")
        if side == "buy" and held < 0 and quantity > -held - same:
            raise Refused(403, 40310000, f"insufficient qty available for order (available: {-held - same})")
        if side == "sell" and held <= 0:
            if symbol in self.no_borrow:
                raise Refused(422, 42210000, f'asset "{symbol}" cannot be sold short')
            if quantity != quantity.to_integral_value():
                raise Refused(422, 42210000, "fractional orders cannot be sold short")
