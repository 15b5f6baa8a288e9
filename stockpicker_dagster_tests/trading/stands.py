"""Accounts at brokers' loopback servers, with the steps of a rebalance as short calls: a plan, approval, fills."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.sources.exchange import ExchangeVenue
from stockpicker_dagster.trading import desk, ledger, reconciliation
from stockpicker_dagster.trading.account_policy import Setup, open_account
from stockpicker_dagster.trading.approval import decide
from stockpicker_dagster.trading.brokers import Broker
from stockpicker_dagster.trading.brokers.connections import DATA_URL, connect
from stockpicker_dagster.trading.brokers.ticket.export import hand_out
from stockpicker_dagster.trading.brokers.ticket.reports import state_holdings, take_fills
from stockpicker_dagster.trading.execution import ExecutionReport
from stockpicker_dagster_tests.trading.brokers import alpaca_server, interactive_brokers_server
from stockpicker_dagster_tests.trading.brokers.alpaca_server import AlpacaServer
from stockpicker_dagster_tests.trading.brokers.exchange import EVENING, MONDAY, Exchange
from stockpicker_dagster_tests.trading.brokers.interactive_brokers_server import InteractiveBrokersServer
from stockpicker_dagster_tests.trading.brokers.venues import InteractiveBrokersVenue

CALENDAR = trading_calendar("XNYS")
CASH = Decimal(1_000_000)
WEDNESDAY = date(2024, 3, 6)
ROOMY = {"net": Decimal(1), "position": Decimal(1), "order_notional": Decimal(1_000_000), "gross": Decimal(2)}


class Stand(ABC):
    """One account at one broker, with the steps of a rebalance as short calls."""

    kind = ""
    number = ""

    def __init__(self, engine: Engine, base_url: str, **settings: Any) -> None:
        self.engine = engine
        self.market = Exchange(cash=CASH, instant=False)
        self.kept: Broker | None = None
        self.session = MONDAY
        self.prices = dict.fromkeys(("AAA", "BBB", "CCC", "BRK-B"), 50.0)
        self.tickers: dict[str, str | None] = {}
        place: dict[str, Any] = {"broker": self.kind, "base_url": base_url, "broker_account": self.number}
        setup = Setup(**place, limits=dict(ROOMY))
        open_account(engine, "us", setup, CASH, "os:me", EVENING)
        if settings:
            with engine.begin() as connection:
                connection.execute(ledger.accounts.update().where(ledger.accounts.c.id == "us").values(**settings))

    @property
    def now(self) -> datetime:
        return self.market.now

    def connect(self, engine: Engine, account: str) -> Broker:
        """The account's broker, kept because making one reads the certificates of this machine."""
        self.kept = self.kept or self.reach(engine, account)
        return self.kept

    @abstractmethod
    def reach(self, engine: Engine, account: str) -> Broker:
        """A fresh adapter."""

    def propose(self, targets: Mapping[str, float], **more: Any) -> desk.ProposalOutcome:
        asked: dict[str, Any] = {
            "account_id": "us",
            "strategy": "momentum",
            "author": "os:author",
            "session": self.session,
            "targets": targets,
            "reference_prices": self.prices,
            "volumes": dict.fromkeys(targets, 1e9),
            "corporate_actions": (),
            "venue": ExchangeVenue(CALENDAR, None),  # type: ignore[arg-type]
            "venue_name": "yahoo",
            "latest_stored": self.session,
            "model_id": "model-1",
            "code_version": "code-1",
            "data_version": "data-1",
            "limits": {},
            "now": self.now,
            "tickers": self.tickers,
            "connect": self.connect,
        }
        return desk.propose(self.engine, **{**asked, **more})

    def proposed(self, targets: Mapping[str, float]) -> str:
        outcome = self.propose(targets)
        assert outcome.id is not None, outcome.reason
        return outcome.id

    def approve(self, proposal: str) -> None:
        decide(self.engine, proposal, "os:approver", "approve", "", self.now)

    def execute(self) -> ExecutionReport:
        venue = ExchangeVenue(CALENDAR, None)  # type: ignore[arg-type]
        return desk.execute_approved(
            self.engine, "momentum", self.session, venue, lambda: self.now, connect=self.connect
        )

    def fill_all(self) -> None:
        """The market fills everything that is working."""
        for order in [order for order in self.market.orders if order.open]:
            self.market.fill(order)

    def rebalance(self, targets: Mapping[str, float]) -> ExecutionReport:
        """Evening, approval, open, fills, close, and the next evening."""
        self.approve(self.proposed(targets))
        report = self.execute()
        assert report.status == "working", report.message
        trades_in = CALENDAR.next_session(self.session)
        self.market.open_session(trades_in)
        for _ in range(8):
            report = self.execute()
            if report.status != "working":
                break
            self.market.advance(seconds=5)
            self.fill_all()
        self.market.close_session(trades_in)
        self.session = trades_in
        self.market.at(trades_in, 20, 15)
        return report

    def books(self) -> dict[str, Decimal]:
        with self.engine.connect() as connection:
            return ledger.held_quantities(connection, "us")

    def reconciled(self) -> reconciliation.Reconciliation:
        return desk.reconcile_account(self.engine, "us", self.now, connect=self.connect)


class AlpacaStand(Stand):
    kind, number = "alpaca", alpaca_server.NUMBER

    def __init__(self, engine: Engine, server: AlpacaServer, **settings: Any) -> None:
        super().__init__(engine, server.url, **settings)
        server.exchange = self.market
        self.server = server

    def reach(self, engine: Engine, account: str) -> Broker:
        secrets = {"APCA_API_KEY_ID__US": alpaca_server.KEY, "APCA_API_SECRET_KEY": alpaca_server.SECRET}
        return connect(engine, account, now=lambda: self.now, environment={**secrets, DATA_URL: self.server.url})


class InteractiveBrokersStand(Stand):
    kind, number = "interactive_brokers", interactive_brokers_server.NUMBER

    def __init__(self, engine: Engine, server: InteractiveBrokersServer) -> None:
        super().__init__(engine, server.api)
        self.market.unique_for = timedelta(hours=24)
        server.exchange = self.market
        self.server = server

    def reach(self, _engine: Engine, account: str) -> Broker:
        broker = InteractiveBrokersVenue(self.server).broker()
        broker.account_id = account
        return broker


class TicketStand(Stand):
    kind, number = "ticket", "HOOD1"

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, "ticket://person")
        state_holdings(engine, "us", "symbol,quantity\n", CASH, "os:me", EVENING - timedelta(hours=1))

    def reach(self, engine: Engine, account: str) -> Broker:
        return connect(engine, account, now=lambda: self.now)

    def fill_all(self) -> None:
        """The person places what is on the list, and reports it."""
        lines = ["order,quantity,price,fees,time"]
        moment = f"{self.now:%Y-%m-%d %H:%M:%S}+00:00"
        lines += [f"{each.order},{each.quantity},50,0,{moment}" for each in hand_out(self.engine, "us", self.now)]
        take_fills(self.engine, "us", "\n".join(lines), "os:me", self.now)
