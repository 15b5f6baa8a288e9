"""The largest stocks by dollar volume: chosen from prices before the day, whatever comes after it."""

from collections.abc import Sequence
from datetime import date
from statistics import median

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.universes import TopRule, Universe, from_spells, from_symbols, top_by_dollar_volume
from stockpicker_dagster.market.universes.dollar_volume import (
    LEAST_OBSERVED,
    WINDOW_SESSIONS,
    ReadPrices,
    reconstitution_days,
)
from stockpicker_dagster.market.universes.membership import SPELLS_SCHEMA

CALENDAR = trading_calendar("XNYS")
START, END = date(2023, 1, 3), date(2023, 12, 29)
SESSIONS = CALENDAR.sessions(START, END)
SYMBOLS = [f"S{n:02}" for n in range(12)]


def a_market(seed: int = 1, symbols: Sequence[str] = SYMBOLS) -> pl.DataFrame:
    """Prices with holes, and volumes that wander, so that the order changes through the year."""
    rng = np.random.default_rng(seed)
    volumes = np.exp(np.cumsum(0.1 * rng.standard_normal((len(SESSIONS), len(symbols))), axis=0))
    present = rng.random(volumes.shape) < 0.8
    at, which = np.nonzero(present)
    return pl.DataFrame(
        {
            "symbol": pl.Series(symbols).gather(which),
            "date": pl.Series(SESSIONS).gather(at),
            "close": 10.0,
            "volume": volumes[at, which],
        }
    )


MARKET = a_market()


def reading(prices: pl.DataFrame) -> ReadPrices:
    return lambda sessions: prices.lazy().filter(pl.col("date").is_in(list(sessions)))


def top(prices: pl.DataFrame, last: date = END, first: date = START, of: Universe | None = None) -> Universe:
    return top_by_dollar_volume(TopRule(4, "monthly"), (first, last), reading(prices), CALENDAR, START, of)


def chosen_by_hand(prices: pl.DataFrame, day: date, candidates: Sequence[str] = SYMBOLS) -> list[str]:
    """The rule in plain Python: the four largest medians over the 63 sessions before the month of `day` began."""
    month = [session for session in SESSIONS if (session.year, session.month) == (day.year, day.month)]
    made = SESSIONS[WINDOW_SESSIONS] if month[0] < SESSIONS[WINDOW_SESSIONS] else month[0]
    window = SESSIONS[SESSIONS.index(made) - WINDOW_SESSIONS : SESSIONS.index(made)]
    inside = prices.filter(pl.col("date").is_in(window))
    dollars: dict[str, list[float]] = {}
    for symbol, close, volume in inside.select("symbol", "close", "volume").iter_rows():
        dollars.setdefault(symbol, []).append(close * volume)
    ranked = [(-median(each), symbol) for symbol, each in dollars.items() if len(each) >= LEAST_OBSERVED]
    return sorted(symbol for _, symbol in sorted(each for each in ranked if each[1] in candidates)[:4])


def test_members_are_the_largest_medians_before_the_month_began() -> None:
    universe = top(MARKET)
    assert all(universe.members(day) == [] for day in SESSIONS[:WINDOW_SESSIONS])
    by_hand = {day: chosen_by_hand(MARKET, day) for day in SESSIONS[WINDOW_SESSIONS:]}
    assert {day: universe.members(day) for day in by_hand} == by_hand
    assert len({tuple(members) for members in by_hand.values()}) >= 3
    assert universe.point_in_time
    assert "among the stocks that the price source holds" in str(universe.caveat)


@settings(max_examples=12, deadline=None)
@given(position=st.integers(0, len(SESSIONS) - 1), seed=st.integers(2, 99))
def test_nothing_after_a_day_changes_its_members(position: int, seed: int) -> None:
    """The rest of the year is another market's, or is gone: up to the day nothing differs."""
    day = SESSIONS[position]
    past, other = MARKET.filter(pl.col("date") <= day), a_market(seed).filter(pl.col("date") > day)
    before = top(MARKET).membership(SESSIONS[: position + 1])
    assert top(pl.concat([past, other])).membership(SESSIONS[: position + 1]).equals(before)
    assert top(past, last=day).membership(SESSIONS[: position + 1]).equals(before)


def test_single_days_have_the_members_of_the_whole_range() -> None:
    whole = top(MARKET)
    for day in SESSIONS[::7]:
        assert top(MARKET, first=day, last=day).members(day) == whole.members(day)


def test_a_split_moves_nothing_in_prices_as_traded_or_restated() -> None:
    day = date(2023, 6, 15)
    factor = pl.when((pl.col("symbol") == "S03") & (pl.col("date") >= day)).then(4.0).otherwise(1.0)
    split = MARKET.with_columns(close=pl.col("close") / factor, volume=pl.col("volume") * factor)
    assert top(split).spells.equals(top(MARKET).spells)


def test_ties_go_to_the_symbol_that_sorts_first() -> None:
    flat = MARKET.with_columns(volume=pl.lit(1.0)).sample(fraction=1.0, shuffle=True, seed=3)
    assert top(flat).members(END) == SYMBOLS[:4]


def test_only_candidates_of_the_day_before_are_chosen_with_their_sectors() -> None:
    spells = [(symbol, START, None, "X", None) for symbol in SYMBOLS[:6]]
    spells += [(symbol, date(2023, 9, 1), None, "Y", None) for symbol in SYMBOLS[6:]]
    candidates = from_spells(
        "mine", pl.DataFrame(spells, schema=SPELLS_SCHEMA, orient="row"), point_in_time=True, caveat=None
    )
    universe = top(MARKET, of=candidates)
    august, september, october = date(2023, 8, 15), date(2023, 9, 15), date(2023, 10, 16)
    # September's members were chosen with those who were candidates on the last day of August.
    for day, of in ((august, SYMBOLS[:6]), (september, SYMBOLS[:6]), (october, SYMBOLS)):
        assert universe.members(day) == chosen_by_hand(MARKET, day, of)
    assert universe.sectors() == ["X", "Y"]
    assert universe.name == "top 4 by dollar volume of mine"
    assert not top(MARKET, of=from_symbols(SYMBOLS)).point_in_time


@pytest.mark.parametrize(("cadence", "firsts"), [("monthly", range(5, 13)), ("quarterly", (7, 10)), ("yearly", ())])
def test_members_are_chosen_on_the_first_session_of_a_period(cadence: str, firsts: Sequence[int]) -> None:
    days = reconstitution_days((START, END), cadence, CALENDAR, START)  # type: ignore[arg-type]
    expected = [next(day for day in SESSIONS if (day.year, day.month) == (2023, month)) for month in firsts]
    assert days == [SESSIONS[WINDOW_SESSIONS], *expected]
