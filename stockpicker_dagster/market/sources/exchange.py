"""A real exchange as the venue of paper orders: its clock, and the opening prices that a source of daily prices brings.

It is the same for every source of real prices. The simulated market brings a venue of its own.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

from stockpicker_dagster.market.calendar import TradingCalendar
from stockpicker_dagster.market.sources import PriceSource, Window

AUCTION_CUT_OFF = timedelta(minutes=2)
"""Orders for the opening auction in New York are taken until two minutes before the open."""


@dataclass(frozen=True)
class ExchangeVenue:
    """A real exchange, as far as paper trading on daily prices needs it."""

    calendar: TradingCalendar
    source: PriceSource
    simulated: bool = False

    @property
    def exchange(self) -> str:
        """The calendar's name."""
        return self.calendar.name

    def window(self, session: date, latest_stored: date, now: datetime) -> Window | None:
        """From the close of `session` to two minutes before the next open, if that lies ahead and prices are stored."""
        if session != latest_stored or session != self.calendar.last_completed(now):
            return None
        opens, next_open = self.calendar.close_at(session), self.calendar.open_at(self.trade_session(session))
        window = Window(opens, next_open - AUCTION_CUT_OFF)
        return window if now < window.closes else None

    def trade_session(self, session: date) -> date:
        """The next session of the exchange."""
        return self.calendar.next_session(session)

    def opens(self, session: date, symbols: Collection[str]) -> dict[str, Decimal] | None:
        """The source's opening prices, to a hundredth of a cent; None until it can answer for `session`."""
        available = self.source.available_through()
        if available is not None and available < session:
            return None
        prices = self.source.fetch(list(symbols), [session]).prices
        return {symbol: Decimal(f"{price:.4f}") for symbol, price in prices.select("symbol", "open").iter_rows()}
