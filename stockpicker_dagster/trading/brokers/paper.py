"""The embedded paper broker: its own books of orders, fills, positions and cash, kept in the ledger's database.

Orders wait for the opening auction of their session and fill there at the opening price, half the spread worse, plus
commission; reductions fill before openings, and no order takes a position across zero. It stands in for a broker: the
ledger learns of its fills only by asking, as it would of any other.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Engine, Row, String, bindparam, func, insert, select, update

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.accounts import PAPER_URL, Costs, read_account
from stockpicker_dagster.trading.brokers import (
    Absent,
    AccountStatus,
    Borrow,
    BrokerOrder,
    Capabilities,
    Clock,
    Lookup,
    Movement,
    OrderRequest,
    Quote,
    Rejected,
    Submission,
    last_refusal,
    order_under_id,
    refusal_of,
)
from stockpicker_dagster.trading.corporate_actions import KINDS, Booking, CorporateAction, book
from stockpicker_dagster.trading.ledger import Fill
from stockpicker_dagster.trading.rebalance import PHASES

ZERO = Decimal(0)
_BASIS_POINT = Decimal("0.0001")
_PRICE_STEP = Decimal("0.000001")
_MONEY_STEP = Decimal("0.0001")

_HERE = bindparam("account", type_=String)
_ORDER = select(ledger.paper_orders).where(
    ledger.paper_orders.c.account == _HERE, ledger.paper_orders.c.client_order_id == bindparam("named")
)
_WORKING = select(ledger.paper_orders).where(
    ledger.paper_orders.c.account == _HERE, ledger.paper_orders.c.status == "working"
)
_CHANGE_ORDER = update(ledger.paper_orders).where(ledger.paper_orders.c.client_order_id == bindparam("named"))
_POSITIONS = select(ledger.paper_positions.c.symbol, ledger.paper_positions.c.quantity).where(
    ledger.paper_positions.c.account == _HERE
)
_CASH = select(ledger.paper_accounts.c.cash).where(ledger.paper_accounts.c.account == _HERE)
_FILLS_AFTER = (
    select(ledger.paper_fills)
    .where(ledger.paper_fills.c.account == _HERE, ledger.paper_fills.c.sequence > bindparam("after"))
    .order_by(ledger.paper_fills.c.sequence)
)

Fault = Callable[[str], None]
"""Called with the name of a step; a test makes it raise, which is a crash at that step."""


def no_fault(_step: str) -> None:
    """The fault of everyday use: none."""


def _no_quotes(_symbols: Sequence[str]) -> Mapping[str, Quote]:
    return {}


def _everything(_symbol: str) -> Decimal | None:
    return None


def _easy(_symbol: str) -> Borrow:
    return "easy"


class PaperBroker:
    """One paper account. Every method is one transaction; `fault` is called inside it, before the commit.

    `available` says how many shares of a symbol an auction has for us (None: as many as are wanted); more is not
    filled. `borrowable` says what can be sold short. Both default to a market without friction.
    """

    name = "paper"
    base_url = PAPER_URL
    capabilities = Capabilities(
        shorts=True,
        holds_openings=True,
        embedded=True,
        client_id_length=128,
        verified="embedded; its own books are reconciled with the ledger after every execution",
    )

    def __init__(
        self,
        engine: Engine,
        account_id: str,
        fault: Fault = no_fault,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        quotes: Callable[[Sequence[str]], Mapping[str, Quote]] = _no_quotes,
        available: Callable[[str], Decimal | None] = _everything,
        borrowable: Callable[[str], Borrow] = _easy,
    ) -> None:
        self.account_id = account_id
        self._engine = engine
        self._fault = fault
        self._now = now
        self._quotes = quotes
        self._available = available
        self._borrowable = borrowable

    def clock(self) -> Clock:
        """See `Broker.clock`; its hours are those of the venue that tells it the opening prices."""
        return Clock(self._now())

    def account(self) -> AccountStatus:
        """See `Broker.account`; without prices there is no equity to tell, and buying power is not limited."""
        return AccountStatus(number=self.account_id, cash=self.cash(), shorting=True)

    def submit(self, request: OrderRequest) -> Submission:
        """Takes an order as working until the open of its session; see `Broker.submit`."""
        if (refusal := refusal_of(self.capabilities, request)) is not None:
            return Rejected(refusal)
        with transaction(self._engine) as connection:
            self._lock(connection)
            known = self._order(connection, request.client_order_id)
            if known is not None:
                return order_under_id(_answer(known), request)
            # With the account's row in hand: nobody takes the account over, or ends its proposal, before the commit.
            if (refused := last_refusal(request)) is not None:
                return refused
            if request.side == "short" and self._borrowable(request.symbol) == "none":
                return Rejected(f"{request.symbol} cannot be borrowed to sell it short", "borrow")
            connection.execute(
                insert(ledger.paper_orders).values(
                    client_order_id=request.client_order_id,
                    account=self.account_id,
                    symbol=request.symbol,
                    side=request.side,
                    quantity=request.quantity,
                    phase=request.phase,
                    collar_low=request.collar_low,
                    collar_high=request.collar_high,
                    trade_session=request.trade_session,
                    status="working",
                    filled_quantity=ZERO,
                    reason="",
                    submitted_at=request.submitted_at,
                    order_type=request.order_type,
                    time_in_force=request.time_in_force,
                    limit_price=request.limit_price,
                )
            )
            self._fault("submit")
        return self._known(request.client_order_id)

    def find(self, client_order_id: str) -> Lookup:
        """See `Broker.find`."""
        with self._engine.connect() as connection:
            row = self._order(connection, client_order_id)
        return Absent() if row is None else _answer(row)

    def _known(self, client_order_id: str) -> BrokerOrder:
        with self._engine.connect() as connection:
            row = self._order(connection, client_order_id)
        assert row is not None
        return _answer(row)

    def open_orders(self) -> list[BrokerOrder]:
        """See `Broker.open_orders`."""
        with self._engine.connect() as connection:
            return [_answer(row) for row in self._working(connection)]

    def cancel(self, client_order_id: str, reason: str) -> Lookup:
        """See `Broker.cancel`; an order that has ended stays as it is."""
        with transaction(self._engine) as connection:
            self._lock(connection)
            row = self._order(connection, client_order_id)
            if row is None:
                return Absent()
            if row.status == "working":
                self._end(connection, row, "cancelled", row.filled_quantity, reason)
        return self._known(client_order_id)

    def positions(self) -> dict[str, Decimal]:
        """See `Broker.positions`."""
        with self._engine.connect() as connection:
            return {symbol: held for symbol, held in sorted(self._held(connection).items()) if held}

    def cash(self) -> Decimal:
        """See `Broker.cash`."""
        with self._engine.connect() as connection:
            return self._cash(connection)

    def fills_since(self, fill_id: str | None) -> Sequence[Fill]:
        """See `Broker.fills_since`; a fill's id is its number within the account."""
        with self._engine.connect() as connection:
            return [
                Fill(
                    str(row.sequence),
                    row.client_order_id,
                    row.symbol,
                    row.quantity,
                    row.price,
                    row.commission,
                    row.session,
                    row.filled_at,
                )
                for row in connection.execute(_FILLS_AFTER, {"account": self.account_id, "after": int(fill_id or 0)})
            ]

    def movements_since(self, since: datetime) -> Sequence[Movement]:
        """See `Broker.movements_since`: none, because whoever knows the market's events books them here."""
        return ()

    def borrow(self, symbols: Sequence[str]) -> Mapping[str, Borrow]:
        """See `Broker.borrow`."""
        return {symbol: self._borrowable(symbol) for symbol in symbols}

    def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """See `Broker.quotes`; from the source that it was given."""
        return self._quotes(symbols)

    def buying_power_needed(self, request: OrderRequest, quote: Quote | None) -> Decimal | None:
        """See `Broker.buying_power_needed`: buying power is not limited here."""
        return ZERO

    def fill_at_open(self, trade_session: date, opens: Mapping[str, Decimal], now: datetime) -> int:
        """The opening auction of `trade_session`: ends every order working for it; says how many filled.

        `opens` are opening prices in currency as traded. An order ends unfilled where its symbol has none, where the
        open is outside its collar, and where it would take the position across zero; a reduction fills at most what is
        held. Reductions fill first; positions, cash and fills change in one transaction.
        """
        with transaction(self._engine) as connection:
            self._lock(connection)
            costs = read_account(connection, self.account_id).costs
            held = self._held(connection)
            table = ledger.paper_fills
            last = connection.execute(
                select(func.max(table.c.sequence)).where(table.c.account == self.account_id)
            ).scalar_one()
            fills: list[Fill] = []
            for row in self._working(connection):
                if row.trade_session != trade_session:
                    continue
                quantity, reason = _fillable(row, opens.get(row.symbol), held.get(row.symbol, ZERO))
                there = self._available(row.symbol)
                if there is not None and there < quantity:
                    quantity, reason = (
                        max(there, ZERO),
                        f"only {there} shares of {row.symbol} were there in the auction",
                    )
                if quantity:
                    fill = _fill_of(row, quantity, opens[row.symbol], costs, str((last or 0) + len(fills) + 1), now)
                    held[row.symbol] = held.get(row.symbol, ZERO) + fill.quantity
                    fills.append(fill)
                filled = row.filled_quantity + quantity
                self._end(connection, row, "filled" if filled == row.quantity else "cancelled", filled, reason)
            self._book_fills(connection, fills)
            self._fault("fill")
        return len(fills)

    def fill_part(self, client_order_id: str, quantity: Decimal, price: Decimal, now: datetime) -> None:
        """Fills some shares of a working order at `price`, before costs; the rest keeps working.

        Raises `InvalidInput` for more than is left of it, or more than may be filled on what is held.
        """
        with transaction(self._engine) as connection:
            self._lock(connection)
            row = self._order(connection, client_order_id)
            left = ZERO if row is None or row.status != "working" else row.quantity - row.filled_quantity
            if row is None or not 0 < quantity <= left:
                raise InvalidInput(f"{quantity} shares of order {client_order_id} cannot be filled; {left} are left")
            held = self._held(connection).get(row.symbol, ZERO)
            fillable, reason = _fillable(row, price, held)
            if fillable < quantity:
                raise InvalidInput(f"{quantity} shares of order {client_order_id} cannot be filled: {reason}")
            table = ledger.paper_fills
            here = table.c.account == self.account_id
            last = connection.execute(select(func.max(table.c.sequence)).where(here)).scalar_one() or 0
            costs = read_account(connection, self.account_id).costs
            self._book_fills(connection, [_fill_of(row, quantity, price, costs, str(last + 1), now)])
            status = "filled" if quantity == left else "working"
            self._end(connection, row, status, row.filled_quantity + quantity, "")
            self._fault("fill")

    def apply_corporate_actions(self, actions: Iterable[CorporateAction], now: datetime) -> list[Booking]:
        """Books events that are not booked yet, oldest first, in the broker's books and in the ledger at once.

        An event is booked once per account, session, symbol and kind; applying it again does nothing.
        """
        booked: list[Booking] = []
        ordered = sorted(actions, key=lambda action: (action.session, KINDS.index(action.kind), action.symbol))
        with transaction(self._engine) as connection:
            self._lock(connection)
            for action in ordered:
                booking = self._booking(connection, action)
                if booking is not None:
                    self._record_booking(connection, booking, now)
                    booked.append(booking)
            self._fault("corporate_actions")
        return booked

    def _booking(self, connection: Connection, action: CorporateAction) -> Booking | None:
        table = ledger.corporate_actions
        here = (table.c.account == self.account_id) & (table.c.symbol == action.symbol)
        known = select(table.c.kind).where(here, table.c.session == action.session, table.c.kind == action.kind)
        if connection.execute(known).one_or_none() is not None:
            return None
        held = self._held(connection).get(action.symbol, ZERO)
        fills = ledger.paper_fills
        traded = select(fills.c.quantity).where(
            fills.c.account == self.account_id, fills.c.symbol == action.symbol, fills.c.session >= action.session
        )
        booked = select(table.c.quantity_change).where(here, table.c.session >= action.session)
        since = sum(connection.execute(traded).scalars(), ZERO) + sum(connection.execute(booked).scalars(), ZERO)
        return book(action, entitled=held - since, held=held)

    def _record_booking(self, connection: Connection, booking: Booking, now: datetime) -> None:
        action = booking.action
        connection.execute(
            insert(ledger.corporate_actions).values(
                account=self.account_id,
                session=action.session,
                symbol=action.symbol,
                kind=action.kind,
                quantity_change=booking.quantity_change,
                cash=booking.cash,
                detail=booking.detail,
                recorded_at=now,
            )
        )
        change = [(action.symbol, booking.quantity_change)]
        ledger.move_positions(connection, ledger.paper_positions, self.account_id, change)
        ledger.move_positions(connection, ledger.positions, self.account_id, change)
        self._add_cash(connection, booking.cash)
        reference = f"{action.kind} {action.symbol} {action.session}"
        ledger.move_cash(connection, self.account_id, reference, booking.cash, now)

    def _book_fills(self, connection: Connection, fills: Sequence[Fill]) -> None:
        for fill in fills:
            connection.execute(
                insert(ledger.paper_fills).values(
                    account=self.account_id,
                    sequence=int(fill.fill_id),
                    client_order_id=fill.client_order_id,
                    symbol=fill.symbol,
                    quantity=fill.quantity,
                    price=fill.price,
                    commission=fill.commission,
                    session=fill.session,
                    filled_at=fill.filled_at,
                )
            )
        changes = [(fill.symbol, fill.quantity) for fill in fills]
        ledger.move_positions(connection, ledger.paper_positions, self.account_id, changes)
        self._add_cash(connection, sum((fill.cash for fill in fills), ZERO))

    def _lock(self, connection: Connection) -> None:
        ledger.lock_account(connection, self.account_id)

    def _order(self, connection: Connection, client_order_id: str) -> Row[Any] | None:
        return connection.execute(_ORDER, {"account": self.account_id, "named": client_order_id}).one_or_none()

    def _working(self, connection: Connection) -> list[Row[Any]]:
        rows = connection.execute(_WORKING, {"account": self.account_id}).all()
        return sorted(rows, key=lambda row: (PHASES.index(row.phase), row.symbol, row.client_order_id))

    def _end(self, connection: Connection, row: Row[Any], status: str, filled: Decimal, reason: str) -> None:
        changed = {"status": status, "filled_quantity": filled, "reason": reason}
        connection.execute(_CHANGE_ORDER, {"named": row.client_order_id, **changed})

    def _held(self, connection: Connection) -> dict[str, Decimal]:
        rows = connection.execute(_POSITIONS, {"account": self.account_id})
        return {row.symbol: row.quantity for row in rows}

    def _cash(self, connection: Connection) -> Decimal:
        cash: Decimal = connection.execute(_CASH, {"account": self.account_id}).scalar_one()
        return cash

    def _add_cash(self, connection: Connection, amount: Decimal) -> None:
        table = ledger.paper_accounts
        balance = self._cash(connection) + amount
        connection.execute(update(table).where(table.c.account == self.account_id).values(cash=balance))


def _answer(row: Row[Any]) -> BrokerOrder:
    side = "buy" if row.side in ("buy", "cover") else "sell"
    return BrokerOrder(
        row.client_order_id,
        row.client_order_id,
        row.status,
        row.filled_quantity,
        row.reason,
        row.symbol,
        side,
        row.quantity,
    )


def _fillable(row: Row[Any], price: Decimal | None, held: Decimal) -> tuple[Decimal, str]:
    """How many shares of what is left of the order fill at `price` on a position of `held`, and why not all."""
    left: Decimal = row.quantity - row.filled_quantity
    if price is None:
        return ZERO, f"{row.symbol} did not open on {row.trade_session}"
    if (row.collar_low is not None and price < row.collar_low) or (
        row.collar_high is not None and price > row.collar_high
    ):
        return ZERO, f"the open {price} is outside the collar {row.collar_low} to {row.collar_high}"
    worse = price - row.limit_price if row.limit_price is not None else ZERO
    if (row.side in ("buy", "cover") and worse > 0) or (row.side in ("sell", "short") and worse < 0):
        return ZERO, f"the open {price} is beyond the limit {row.limit_price}"
    if row.side in ("sell", "cover"):
        closable = max(held if row.side == "sell" else -held, ZERO)
        if closable < left:
            return closable, f"only {closable} shares of {row.symbol} were held to {row.side}"
        return left, ""
    if (row.side == "buy" and held < 0) or (row.side == "short" and held > 0):
        return ZERO, f"to {row.side} {row.symbol} would cross zero: {held} shares are held"
    return left, ""


def _fill_of(row: Row[Any], quantity: Decimal, opening: Decimal, costs: Costs, fill_id: str, now: datetime) -> Fill:
    direction = 1 if row.side in ("buy", "cover") else -1
    paid = (opening * (1 + direction * costs.spread_bps * _BASIS_POINT / 2)).quantize(_PRICE_STEP)
    commission = (quantity * paid * costs.commission_bps * _BASIS_POINT).quantize(_MONEY_STEP)
    return Fill(
        fill_id=fill_id,
        client_order_id=row.client_order_id,
        symbol=row.symbol,
        quantity=direction * quantity,
        price=paid,
        commission=commission,
        session=row.trade_session,
        filled_at=now,
    )
