"""Estimates of survivorship: coverage and return gaps that are known beforehand."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.universes import from_file
from stockpicker_dagster.market.universes.survivorship import (
    coverage_by_year,
    estimate_survivorship,
    mean_returns,
    return_gap,
    survivors,
)

CALENDAR = trading_calendar("XNYS")
SESSIONS = CALENDAR.sessions(date(2022, 11, 1), date(2023, 3, 31))
DIES = SESSIONS[60]
STEADY, FALLING, HALF = ("GOOD", 0.002), ("DEAD", -0.004), 0.5


def prices_of(*growths: tuple[str, float], until: dict[str, date] | None = None) -> pl.DataFrame:
    """Stocks that grow by the same fraction every day; one pays half of its price as a 2:1 split on the 20th day."""
    rows = []
    for symbol, growth in growths:
        closes = 100.0 * (1.0 + growth) ** np.arange(len(SESSIONS))
        for t, day in enumerate(SESSIONS):
            split = 2.0 if t == 20 else 1.0
            rows.append((symbol, day, closes[t] / (2.0 if t >= 20 else 1.0), split))
    frame = pl.DataFrame(rows, schema=["symbol", "date", "close", "adjustment"], orient="row")
    ends = until or {}
    last = pl.col("symbol").replace_strict(ends, default=SESSIONS[-1], return_dtype=pl.Date)
    return frame.filter(pl.col("date") <= last)


PRICES = prices_of(STEADY, FALLING, until={"DEAD": DIES})
EVERYONE = PRICES.select("symbol", "date")


def test_coverage_counts_the_members_of_a_year_that_have_any_price_in_it() -> None:
    members = pl.DataFrame(
        {
            "symbol": ["A", "A", "B", "A", "B"],
            "date": [date(2022, 1, 3), date(2022, 1, 4), date(2022, 1, 3), *[date(2023, 1, 3)] * 2],
        }
    )
    prices = pl.DataFrame({"symbol": ["A", "B"], "date": [date(2022, 6, 1), date(2023, 6, 1)]})
    assert coverage_by_year(members, prices).rows() == [(2022, 2, 1), (2023, 2, 1)]


def test_a_mean_return_belongs_to_the_members_of_the_evening_before_splits_undone() -> None:
    means = mean_returns(EVERYONE, PRICES)
    assert means["date"].to_list() == SESSIONS[1:]
    both, alone = means.filter(pl.col("date") <= DIES)["mean"], means.filter(pl.col("date") > DIES)["mean"]
    np.testing.assert_allclose(both, (0.002 - 0.004) / 2, rtol=1e-9)
    np.testing.assert_allclose(alone, 0.002, rtol=1e-9)
    only_first_day = EVERYONE.filter(pl.col("date") == SESSIONS[0])
    assert mean_returns(only_first_day, PRICES)["date"].to_list() == [SESSIONS[1]]


def test_returns_beyond_half_and_over_long_gaps_are_left_out() -> None:
    spiked = PRICES.with_columns(
        close=pl.when(pl.col("date") == SESSIONS[5]).then(pl.col("close") * 3).otherwise("close")
    )
    assert not {SESSIONS[5], SESSIONS[6]} & set(mean_returns(EVERYONE, spiked)["date"])
    gap = PRICES.filter(~pl.col("date").is_in(SESSIONS[30:40]))
    assert SESSIONS[40] not in set(mean_returns(EVERYONE, gap)["date"])


def test_the_gap_of_survivors_is_what_the_dead_would_have_cost() -> None:
    """While it lived, the dead stock took (0.002 + 0.004) / 2 a day from the mean."""
    estimate = estimate_survivorship(EVERYONE, EVERYONE, PRICES, hindsight_until=None, comparison=None)
    lived = len([day for day in SESSIONS[1:] if day <= DIES])
    assert estimate.gap == pytest.approx(0.003 * 252 * lived / (len(SESSIONS) - 1), rel=1e-9)
    assert estimate.years[0].gap == pytest.approx(0.003 * 252, rel=1e-9)
    assert "what ranking only the stocks that still trade would have added" in estimate.compared
    assert survivors(EVERYONE, PRICES)["symbol"].unique().to_list() == ["GOOD"]


def test_a_list_of_today_is_compared_with_what_the_prices_hold_beside_it() -> None:
    listed = EVERYONE.filter(pl.col("symbol") == "GOOD")
    arguments = {"membership": listed, "ranked": listed, "prices": PRICES, "hindsight_until": date.max}
    estimate = estimate_survivorship(**arguments, comparison=EVERYONE)  # type: ignore[arg-type]
    assert estimate.gap == return_gap(listed, EVERYONE, PRICES)[0]
    assert estimate.gap is not None
    assert estimate.gap > 0
    alone = estimate_survivorship(**arguments, comparison=None)  # type: ignore[arg-type]
    assert alone.gap is None
    assert "hold no stock beside" in alone.compared


def reasons() -> Iterator[tuple[dict[str, object], str]]:
    absent = pl.concat([EVERYONE, EVERYONE.with_columns(symbol=pl.lit("GONE"))])
    yield {"membership": absent}, "the members without prices are not known"
    yield {"prices": prices_of(STEADY, FALLING)}, "no stock that was ranked has stopped trading"
    yield {"hindsight_until": SESSIONS[0]}, "no day ranked so far was ranked with hindsight"
    yield {"hindsight_until": date.max, "comparison": EVERYONE.clear()}, "too few sessions"


@pytest.mark.parametrize(("changes", "reason"), list(reasons()))
def test_what_cannot_be_estimated_says_why(changes: dict[str, object], reason: str) -> None:
    arguments = {
        "membership": EVERYONE, "ranked": EVERYONE, "prices": PRICES, "hindsight_until": None, "comparison": None
    }  # fmt: skip
    estimate = estimate_survivorship(**(arguments | changes))  # type: ignore[arg-type]
    assert estimate.gap is None
    assert reason in estimate.compared


@pytest.mark.real_data
def test_the_known_coverage_of_the_real_index_is_found(real_data: Path) -> None:
    """272 of 495 members of 2005-01-03 and so on, as its publisher counted, on single days."""
    index = from_file(real_data / "universes" / "sp500_membership_1996_2024.csv")
    stored = pl.scan_parquet(real_data / "prices" / "sp500_ever_2000_2024.parquet")
    known = {2005: (495, 272), 2010: (499, 341), 2020: (505, 456), 2024: (503, 501)}
    for year, (members, priced) in known.items():
        days = CALENDAR.sessions(date(year, 1, 1), min(date(year, 12, 31), date(2024, 3, 8)))
        prices = stored.filter(pl.col("date").dt.year() == year).select(
            symbol=pl.col("ticker").str.replace(".", "-", literal=True), date=pl.col("date").cast(pl.Date)
        )
        found = coverage_by_year(index.membership(days[:1]), prices.collect()).row(0)
        assert found[1] == pytest.approx(members, abs=6)
        assert found[2] / found[1] == pytest.approx(priced / members, abs=0.02)


@pytest.mark.real_data
@pytest.mark.long
def test_survivors_of_a_whole_market_did_better_than_everybody(real_data: Path) -> None:
    frame = pl.read_parquet(
        real_data / "prices" / "us_all_2015_2017.parquet", columns=["ticker", "date", "close", "adj_close"]
    ).rename({"ticker": "symbol"})
    rows = frame.with_columns(pl.col("date").cast(pl.Date), close=pl.col("adj_close"), adjustment=pl.lit(1.0)).filter(
        pl.col("close") > 0
    )
    members = rows.select("symbol", "date")
    gap, by_year = return_gap(survivors(members, rows), members, rows)
    assert gap == pytest.approx(0.020, abs=0.005)
    assert all(of_year > 0.0 for of_year in by_year.values())
