"""Filters by price and dollar volume: decided with prices up to the day, whatever comes after it."""

from datetime import date
from statistics import median

import polars as pl
import pytest

from stockpicker_dagster.market.universes import LiquidityFilter, liquid_members
from stockpicker_dagster.market.universes.liquidity import LEAST_OBSERVED, WINDOW_SESSIONS
from stockpicker_dagster_tests.market.universes.test_dollar_volume import (
    CALENDAR,
    MARKET,
    SESSIONS,
    START,
    SYMBOLS,
    a_market,
    reading,
)

PRICES = MARKET.with_columns(close=5.0 + pl.col("volume") % 10.0)
MEMBERS = pl.DataFrame(
    {"symbol": SYMBOLS[:8] * len(SESSIONS), "date": [day for day in SESSIONS for _ in range(8)]}
).sort("date", "symbol")
BOTH = LiquidityFilter(min_price=7.0, min_dollar_volume=10.0)


def passing(rule: LiquidityFilter, prices: pl.DataFrame = PRICES, members: pl.DataFrame = MEMBERS) -> pl.DataFrame:
    return liquid_members(members, rule, reading(prices), CALENDAR, START)


def dollar_medians() -> dict[tuple[str, date], float | None]:
    """The median of every row's window in plain Python, None where too few of its sessions have prices."""
    dollars = {(symbol, day): close * volume for symbol, day, close, volume in PRICES.iter_rows()}
    medians: dict[tuple[str, date], float | None] = {}
    for symbol, day in dollars:
        at = SESSIONS.index(day)
        window = SESSIONS[max(0, at + 1 - WINDOW_SESSIONS) : at + 1]
        seen = [dollars[symbol, each] for each in window if (symbol, each) in dollars]
        medians[symbol, day] = median(seen) if len(seen) >= LEAST_OBSERVED else None
    return medians


def test_members_pass_by_the_days_close_and_the_windows_median() -> None:
    medians, closes = dollar_medians(), {(s, d): c for s, d, c, _ in PRICES.iter_rows()}
    by_hand = [
        row
        for row in MEMBERS.rows()
        if row in closes and closes[row] >= 7.0 and medians[row] is not None and medians[row] >= 10.0  # type: ignore[operator]
    ]
    found = passing(BOTH).rows()
    assert found == by_hand
    assert 0 < len(found) < MEMBERS.height


def test_a_stock_without_a_price_on_the_day_is_left_out() -> None:
    traded = set(PRICES.select("symbol", "date").rows())
    assert passing(LiquidityFilter(min_price=0.01)).rows() == [row for row in MEMBERS.rows() if row in traded]


@pytest.mark.parametrize("position", [0, 13, 40, 150])
def test_nothing_after_a_day_changes_who_passes_on_it(position: int) -> None:
    day = SESSIONS[position]
    other = a_market(5).filter(pl.col("date") > day).select(PRICES.columns)
    changed = passing(BOTH, pl.concat([PRICES.filter(pl.col("date") <= day), other]))
    past = pl.col("date") <= day
    assert changed.filter(past).equals(passing(BOTH).filter(past))


def test_single_days_pass_the_same_as_the_whole_range() -> None:
    whole = passing(BOTH)
    for day in SESSIONS[::11]:
        alone = passing(BOTH, members=MEMBERS.filter(pl.col("date") == day))
        assert alone.equals(whole.filter(pl.col("date") == day))


def test_without_a_filter_nothing_is_read_and_everyone_passes() -> None:
    def unread(sessions: object) -> pl.LazyFrame:
        raise AssertionError("no price is needed")

    assert liquid_members(MEMBERS, LiquidityFilter(), unread, CALENDAR, START) is MEMBERS
