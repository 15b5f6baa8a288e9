"""Filters that narrow any universe to stocks that could be traded on the day: a least price, a least dollar volume.

Both are decided with prices up to the close of the day itself. A stock that is filtered out is not ranked on that day;
a position in it, its label and its prices stay as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from stockpicker_dagster.market.calendar import TradingCalendar
from stockpicker_dagster.market.universes.dollar_volume import DOLLAR_VOLUME, ReadPrices

WINDOW_SESSIONS = 21
"""A month of sessions, the day itself the last of them, over which the median of dollar volume is taken."""
LEAST_OBSERVED = 14
"""Of these sessions, as many a stock must have prices on; with fewer its liquidity is unknown, and it is left out."""


@dataclass(frozen=True)
class LiquidityFilter:
    """The least close (currency, as traded that day) and the least median dollar volume (currency a session)."""

    min_price: float | None = None
    min_dollar_volume: float | None = None

    @property
    def any(self) -> bool:
        return self.min_price is not None or self.min_dollar_volume is not None


def liquid_members(
    members: pl.DataFrame, rule: LiquidityFilter, read: ReadPrices, calendar: TradingCalendar, start: date
) -> pl.DataFrame:
    """The rows of `members` (`symbol`, `date`) that pass `rule` with the prices of their day and of those before it.

    `min_price` is compared with the day's close; `min_dollar_volume` with the median over the `WINDOW_SESSIONS`
    sessions that end with the day, fewer at `start`, where the prices begin. A stock without a price on the day fails.
    """
    if not rule.any or members.is_empty():
        return members
    first, last = members["date"].min(), members["date"].max()
    assert isinstance(first, date)
    assert isinstance(last, date)
    reach = first if rule.min_dollar_volume is None else _sessions_before(first, calendar, start)
    sessions = calendar.sessions(reach, last)
    prices = read(sessions).select("symbol", "date", "close", "volume").collect()
    passing = _passing(prices, rule, sessions).select("symbol", "date")
    return members.join(passing, on=["symbol", "date"], how="semi", maintain_order="left")


def _sessions_before(first: date, calendar: TradingCalendar, start: date) -> date:
    """The first session of the window that ends on `first`."""
    earlier = calendar.sessions(start, first)[-WINDOW_SESSIONS:]
    return earlier[0] if earlier else first


def _passing(prices: pl.DataFrame, rule: LiquidityFilter, sessions: Sequence[date]) -> pl.DataFrame:
    tests = []
    if rule.min_price is not None:
        tests.append(pl.col("close") >= rule.min_price)
    if rule.min_dollar_volume is not None:
        # A window counts sessions of the calendar, not rows of the stock, hence by position.
        order = pl.DataFrame({"date": pl.Series(sessions, dtype=pl.Date), "position": range(len(sessions))})
        prices = prices.join(order, on="date").sort("symbol", "position")
        median = DOLLAR_VOLUME.rolling_median_by(
            "position", window_size=f"{WINDOW_SESSIONS}i", min_samples=LEAST_OBSERVED
        ).over("symbol")
        tests.append(median >= rule.min_dollar_volume)
    return prices.filter(pl.all_horizontal(tests))
