"""A broker asked by the ids of securities, where it knows them by other tickers: names are translated, nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import TypeVar

from stockpicker_dagster.trading.brokers import (
    AccountStatus,
    AuctionBroker,
    Borrow,
    Broker,
    BrokerOrder,
    Clock,
    Fill,
    Lookup,
    Movement,
    OrderRequest,
    Quote,
    Submission,
)
from stockpicker_dagster.trading.tickers import Tickers

_Answer = TypeVar("_Answer")


def by_security(broker: Broker, tickers: Tickers) -> Broker:
    """The broker under these names; the embedded one knows securities by their ids and stays as it is."""
    if isinstance(broker, AuctionBroker | BySecurity):
        return broker
    return BySecurity(broker, tickers)


class BySecurity:
    """One account at one broker; see `Broker`."""

    def __init__(self, broker: Broker, tickers: Tickers) -> None:
        self.name = broker.name
        self.account_id = broker.account_id
        self.base_url = broker.base_url
        self.capabilities = broker.capabilities
        self._broker = broker
        self._tickers = tickers

    def clock(self) -> Clock:
        """See `Broker.clock`."""
        return self._broker.clock()

    def account(self) -> AccountStatus:
        """See `Broker.account`."""
        return self._broker.account()

    def cash(self) -> Decimal:
        """See `Broker.cash`."""
        return self._broker.cash()

    def positions(self) -> dict[str, Decimal]:
        """See `Broker.positions`."""
        return {self._tickers.security(name): held for name, held in self._broker.positions().items()}

    def open_orders(self) -> Sequence[BrokerOrder]:
        """See `Broker.open_orders`."""
        return [self._named(order) for order in self._broker.open_orders()]

    def find(self, client_order_id: str) -> Lookup:
        """See `Broker.find`."""
        return self._named(self._broker.find(client_order_id))

    def submit(self, request: OrderRequest) -> Submission:
        """See `Broker.submit`."""
        return self._named(self._broker.submit(replace(request, symbol=self._tickers.ticker(request.symbol))))

    def cancel(self, client_order_id: str, reason: str) -> Lookup:
        """See `Broker.cancel`."""
        return self._named(self._broker.cancel(client_order_id, reason))

    def fills_since(self, fill_id: str | None) -> Sequence[Fill]:
        """See `Broker.fills_since`."""
        fills = self._broker.fills_since(fill_id)
        return [replace(fill, symbol=self._tickers.security(fill.symbol)) for fill in fills]

    def movements_since(self, since: datetime) -> Sequence[Movement]:
        """See `Broker.movements_since`."""
        movements = self._broker.movements_since(since)
        return [replace(each, symbol=each.symbol and self._tickers.security(each.symbol)) for each in movements]

    def borrow(self, symbols: Sequence[str]) -> Mapping[str, Borrow]:
        """See `Broker.borrow`."""
        said = self._broker.borrow([self._tickers.ticker(symbol) for symbol in symbols])
        return {self._tickers.security(name): status for name, status in said.items()}

    def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """See `Broker.quotes`."""
        said = self._broker.quotes([self._tickers.ticker(symbol) for symbol in symbols])
        return {
            self._tickers.security(name): replace(quote, symbol=self._tickers.security(name))
            for name, quote in said.items()
        }

    def buying_power_needed(self, request: OrderRequest, quote: Quote | None) -> Decimal | None:
        """See `Broker.buying_power_needed`."""
        return self._broker.buying_power_needed(replace(request, symbol=self._tickers.ticker(request.symbol)), quote)

    def _named(self, answer: _Answer) -> _Answer:
        if isinstance(answer, BrokerOrder) and answer.symbol:
            return replace(answer, symbol=self._tickers.security(answer.symbol))
        return answer
