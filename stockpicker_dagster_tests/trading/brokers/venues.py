"""Every kind of broker on one invented market: what the conformance suite is run on.

Each entry of `VENUES` opens a `Venue`: the adapter, and the means of a test to move what is behind it. What happens in
the market is said the same way for all of them; how it comes about is each one's own.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, select, update

from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.accounts import ensure_paper_account
from stockpicker_dagster.trading.brokers import Broker
from stockpicker_dagster.trading.brokers.alpaca import AlpacaBroker
from stockpicker_dagster.trading.brokers.interactive_brokers import InteractiveBrokers
from stockpicker_dagster.trading.brokers.paper import PaperBroker
from stockpicker_dagster.trading.brokers.ticket import TICKET_URL, TicketBroker
from stockpicker_dagster.trading.brokers.ticket.export import hand_out
from stockpicker_dagster.trading.brokers.ticket.reports import state_holdings, take_fills
from stockpicker_dagster.trading.brokers.wire import Patience
from stockpicker_dagster_tests.trading.brokers.alpaca_server import KEY, SECRET, AlpacaServer
from stockpicker_dagster_tests.trading.brokers.exchange import EVENING, TUESDAY, Exchange
from stockpicker_dagster_tests.trading.brokers.faulty_server import FaultyServer
from stockpicker_dagster_tests.trading.brokers.interactive_brokers_server import (
    NUMBER,
    PREFIX,
    InteractiveBrokersServer,
)

QUICK = Patience(connect=1, read=0.15, whole=0.4, attempts=2, first_wait=0.01, longest_wait=0.02, refused_for=0.1)
CASH = Decimal(1_000_000)


class Venue:
    """One broker and the market behind it. `orders_path` is where orders are posted, None where nothing is."""

    orders_path: str | None = None
    lookup_path = ""
    server: FaultyServer

    def broker(self) -> Broker:
        """A fresh adapter, as a process has it after a restart."""
        raise NotImplementedError

    def orders_under(self, client_order_id: str) -> int:
        """How many orders the market itself has under this id, ended ones included: the truth."""
        raise NotImplementedError

    def fill(self, client_order_id: str, quantity: object = None) -> None:
        """The market fills some of an order, all of it by default."""
        raise NotImplementedError

    def expire(self, client_order_id: str) -> None:
        """The session ends with the order open."""
        raise NotImplementedError


class _Served(Venue):
    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange

    def orders_under(self, client_order_id: str) -> int:
        return sum(order.client_id == client_order_id for order in self.exchange.orders)

    def fill(self, client_order_id: str, quantity: object = None) -> None:
        order = self.exchange.by_client_id(client_order_id)
        assert order is not None
        self.exchange.now = max(self.exchange.now, self.exchange.calendar.open_at(TUESDAY))
        assert self.exchange.fill(order, quantity) is not None

    def expire(self, client_order_id: str) -> None:
        self.exchange.close_session()


class AlpacaVenue(_Served):
    orders_path = "/v2/orders"
    lookup_path = "/v2/orders:by_client_order_id"

    def __init__(self, server: AlpacaServer) -> None:
        super().__init__(server.exchange)
        self.server = server

    def broker(self) -> AlpacaBroker:
        url = self.server.url
        return AlpacaBroker(
            "us", "paper", url, KEY, SECRET, data_url=url, patience=QUICK, now=lambda: self.exchange.now
        )


class InteractiveBrokersVenue(_Served):
    orders_path = f"{PREFIX}/iserver/account/{NUMBER}/orders"
    lookup_path = f"{PREFIX}/iserver/account/orders"

    def __init__(self, server: InteractiveBrokersServer) -> None:
        super().__init__(server.exchange)
        self.server = server

    def broker(self) -> InteractiveBrokers:
        url, market = self.server.url + PREFIX, self.exchange
        return InteractiveBrokers("ib", "paper", url, NUMBER, patience=QUICK, spacing=0.0, now=lambda: market.now)


class PaperVenue(Venue):
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        ensure_paper_account(engine, "paper", EVENING, cash=CASH)

    def broker(self) -> PaperBroker:
        return PaperBroker(self.engine, "paper", now=lambda: EVENING)

    def orders_under(self, client_order_id: str) -> int:
        table = ledger.paper_orders
        with self.engine.connect() as connection:
            return len(connection.execute(select(table).where(table.c.client_order_id == client_order_id)).all())

    def fill(self, client_order_id: str, quantity: object = None) -> None:
        if quantity is not None:
            self.broker().fill_part(client_order_id, Decimal(str(quantity)), Decimal(50), EVENING)
            return
        table = ledger.paper_orders
        with self.engine.connect() as connection:
            symbol = connection.execute(
                select(table.c.symbol).where(table.c.client_order_id == client_order_id)
            ).scalar_one()
        self.broker().fill_at_open(TUESDAY, {symbol: Decimal(50)}, EVENING)

    def expire(self, client_order_id: str) -> None:
        self.broker().fill_at_open(TUESDAY, {}, EVENING)


class TicketVenue(Venue):
    """A person who places what was handed out and reports it at once."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.clock = EVENING
        ensure_paper_account(engine, "hand", EVENING, cash=CASH)
        with engine.begin() as connection:
            connection.execute(
                update(ledger.accounts)
                .where(ledger.accounts.c.id == "hand")
                .values(broker="ticket", base_url=TICKET_URL)
            )
        state_holdings(engine, "hand", "symbol,quantity\n", CASH, "os:me", EVENING - timedelta(hours=1))

    def broker(self) -> TicketBroker:
        return TicketBroker(self.engine, "hand", now=lambda: self.clock)

    def orders_under(self, client_order_id: str) -> int:
        table = ledger.ticket_orders
        with self.engine.connect() as connection:
            return len(connection.execute(select(table).where(table.c.client_order_id == client_order_id)).all())

    def _report(self, client_order_id: str, **cells: object) -> None:
        out = io.StringIO()
        self.clock += timedelta(minutes=1)
        row = {"order": client_order_id, "time": f"{self.clock:%Y-%m-%d %H:%M:%S}+00:00", **cells}
        writer = csv.DictWriter(out, list(row))
        writer.writeheader()
        writer.writerow(row)
        take_fills(self.engine, "hand", out.getvalue(), "os:me", self.clock)

    def fill(self, client_order_id: str, quantity: object = None) -> None:
        order: Any = self.broker().find(client_order_id)
        hand_out(self.engine, "hand", self.clock)
        shares = order.quantity - order.filled_quantity if quantity is None else quantity
        self._report(client_order_id, quantity=shares, price=50, fees=0)

    def expire(self, client_order_id: str) -> None:
        self._report(client_order_id, status="expired")


@contextmanager
def alpaca(new_ledger: Callable[[], Engine]) -> Iterator[Venue]:
    with AlpacaServer(Exchange(cash=CASH, instant=False)) as server:
        yield AlpacaVenue(server)


@contextmanager
def interactive_brokers(new_ledger: Callable[[], Engine]) -> Iterator[Venue]:
    with InteractiveBrokersServer(Exchange(cash=CASH, instant=False, unique_for=timedelta(hours=24))) as server:
        yield InteractiveBrokersVenue(server)


@contextmanager
def paper(new_ledger: Callable[[], Engine]) -> Iterator[Venue]:
    yield PaperVenue(new_ledger())


@contextmanager
def ticket(new_ledger: Callable[[], Engine]) -> Iterator[Venue]:
    yield TicketVenue(new_ledger())


VENUES: Mapping[str, Any] = {
    "paper": paper,
    "alpaca": alpaca,
    "interactive_brokers": interactive_brokers,
    "ticket": ticket,
}
