"""Orders that a person places by hand, where a broker has no official way for programs: Robinhood's stocks, XTB.

Approved orders are exported as a list (`export`), the person places them at the broker and brings back what became of
them (`reports`). Until then an order that was handed out is working, whatever we ask for: nobody here can end it. What
the account holds is what the person last read off the broker's pages, with the fills that came after.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select, update

from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.brokers import (
    Absent,
    AccountStatus,
    Borrow,
    BrokerOrder,
    BrokerUnavailable,
    Capabilities,
    Clock,
    Fill,
    Lookup,
    Movement,
    OrderRequest,
    OrderStatus,
    Quote,
    Rejected,
    Submission,
    last_refusal,
    order_under_id,
)

TICKET_URL = "ticket://person"
"""Where such an account is reached: by a person."""

ZERO = Decimal(0)
CANCEL_ASKED = "cancel_asked"
"""The state of an order that was handed out and is to be ended: working, until the person says what became of it."""

_STATUSES: Mapping[str, OrderStatus] = {CANCEL_ASKED: "working"}


class TicketBroker:
    """One account at a broker that is reached by a person; see `Broker`. `number` is the account's id there."""

    name = "ticket"
    base_url = TICKET_URL
    capabilities = Capabilities(
        shorts=False,
        orders=frozenset((kind, tif) for kind in ("market", "limit") for tif in ("day", "opg")),
        holds_openings=True,
        client_id_length=128,
        manual=True,
        verified="by its own tests; a person places the orders and reports what became of them",
    )

    def __init__(
        self,
        engine: Engine,
        account_id: str,
        number: str = "",
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.account_id = account_id
        self._engine = engine
        self._number = number or account_id
        self._now = now

    def clock(self) -> Clock:
        """See `Broker.clock`: this machine's."""
        return Clock(self._now())

    def account(self) -> AccountStatus:
        """See `Broker.account`; cash is as the person last stated it, with the fills since."""
        cash, _ = self._stated()
        return AccountStatus(number=self._number, cash=cash, shorting=False)

    def cash(self) -> Decimal:
        """See `Broker.cash`."""
        return self._stated()[0]

    def positions(self) -> dict[str, Decimal]:
        """See `Broker.positions`."""
        return {symbol: quantity for symbol, quantity in sorted(self._stated()[1].items()) if quantity}

    def open_orders(self) -> Sequence[BrokerOrder]:
        """See `Broker.open_orders`: ours alone; a person's own orders show in the next statement."""
        table = ledger.ticket_orders
        here = table.c.account == self.account_id
        with self._engine.connect() as connection:
            rows = connection.execute(select(table).where(here).order_by(table.c.client_order_id)).all()
        return [order for order in map(answer, rows) if not order.ended]

    def find(self, client_order_id: str) -> Lookup:
        """See `Broker.find`."""
        with self._engine.connect() as connection:
            row = self._row(connection, client_order_id)
        return Absent() if row is None else answer(row)

    def submit(self, request: OrderRequest) -> Submission:
        """See `Broker.submit`: puts the order on the list."""
        refusal = self.capabilities.refusal(
            request.client_order_id, request.side, request.quantity, request.order_type, request.time_in_force
        )
        if refusal is not None:
            return Rejected(refusal)
        with transaction(self._engine) as connection:
            ledger.lock_account(connection, self.account_id)
            known = self._row(connection, request.client_order_id)
            if known is None and request.not_after is not None and self._now() >= request.not_after:
                return Rejected(f"it was to be sent before {request.not_after:%Y-%m-%d %H:%M:%S} UTC", "not sent")
            if known is None and (refused := last_refusal(request)) is not None:
                return refused
            if known is None:
                connection.execute(
                    insert(ledger.ticket_orders).values(
                        client_order_id=request.client_order_id,
                        account=self.account_id,
                        symbol=request.symbol,
                        side=request.side,
                        quantity=request.quantity,
                        phase=request.phase,
                        order_type=request.order_type,
                        time_in_force=request.time_in_force,
                        limit_price=request.limit_price,
                        collar_low=request.collar_low,
                        collar_high=request.collar_high,
                        trade_session=request.trade_session,
                        status="working",
                        filled_quantity=ZERO,
                        reason="",
                        submitted_at=request.submitted_at,
                    )
                )
                known = self._row(connection, request.client_order_id)
        assert known is not None
        return order_under_id(answer(known), request)

    def cancel(self, client_order_id: str, reason: str) -> Lookup:
        """See `Broker.cancel`. What was not handed out is ended; of the rest the list asks the person to end it."""
        table = ledger.ticket_orders
        with transaction(self._engine) as connection:
            ledger.lock_account(connection, self.account_id)
            row = self._row(connection, client_order_id)
            if row is not None and row.status == "working":
                status = "cancelled" if row.exported_at is None else CANCEL_ASKED
                here = (table.c.client_order_id == client_order_id) & (table.c.account == self.account_id)
                connection.execute(update(table).where(here).values(status=status, reason=reason))
        return self.find(client_order_id)

    def fills_since(self, fill_id: str | None) -> Sequence[Fill]:
        """See `Broker.fills_since`, in the order in which the person reported them."""
        table = ledger.ticket_fills
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(table).where(table.c.account == self.account_id).order_by(table.c.sequence)
            ).all()
        known = next((row.sequence for row in rows if row.fill_id == fill_id), 0)
        return [_fill(row) for row in rows if row.sequence > known]

    def movements_since(self, since: datetime) -> Sequence[Movement]:
        """See `Broker.movements_since`: they show in the person's statements."""
        return ()

    def borrow(self, symbols: Sequence[str]) -> Mapping[str, Borrow]:
        """See `Broker.borrow`: nothing is sold short here."""
        return dict.fromkeys(symbols, "none")

    def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """See `Broker.quotes`: there are none."""
        return {}

    def buying_power_needed(self, request: OrderRequest, quote: Quote | None) -> Decimal | None:
        """See `Broker.buying_power_needed`: what the shares cost, at the most that may be paid for them."""
        if request.side in ("sell", "cover"):
            return ZERO
        price = request.limit_price or request.collar_high or (None if quote is None else quote.ask)
        return None if price is None else price * request.quantity

    def _row(self, connection: Connection, client_order_id: str) -> Row[Any] | None:
        table = ledger.ticket_orders
        here = (table.c.client_order_id == client_order_id) & (table.c.account == self.account_id)
        return connection.execute(select(table).where(here)).one_or_none()

    def _stated(self) -> tuple[Decimal, dict[str, Decimal]]:
        """Cash and signed shares: as last stated, with the fills after that; raises `BrokerUnavailable` without one."""
        statements, table = ledger.ticket_statements, ledger.ticket_fills
        with self._engine.connect() as connection:
            stated = connection.execute(select(statements).where(statements.c.account == self.account_id)).one_or_none()
            rows = connection.execute(select(table).where(table.c.account == self.account_id)).all()
        if stated is None:
            raise BrokerUnavailable(
                f"nobody has said yet what account {self.account_id!r} holds; `stockpicker broker state "
                f"{self.account_id}` takes it from a file"
            )
        cash = stated.cash
        held = {symbol: Decimal(quantity) for symbol, quantity in json.loads(stated.positions).items()}
        for fill in map(_fill, rows):
            if fill.filled_at > stated.stated_at:
                cash += fill.cash
                held[fill.symbol] = held.get(fill.symbol, ZERO) + fill.quantity
        return cash, held


def answer(row: Row[Any]) -> BrokerOrder:
    """An order of the list as the protocol has it."""
    reason = f"asked to be ended: {row.reason}" if row.status == CANCEL_ASKED else row.reason
    return BrokerOrder(
        client_order_id=row.client_order_id,
        broker_order_id=row.client_order_id,
        status=_STATUSES.get(row.status, row.status),
        filled_quantity=row.filled_quantity,
        reason=reason,
        symbol=row.symbol,
        side="buy" if row.side in ("buy", "cover") else "sell",
        quantity=row.quantity,
    )


def _fill(row: Row[Any]) -> Fill:
    return Fill(
        row.fill_id,
        row.client_order_id,
        row.symbol,
        row.quantity,
        row.price,
        row.commission,
        row.session,
        row.filled_at,
    )
