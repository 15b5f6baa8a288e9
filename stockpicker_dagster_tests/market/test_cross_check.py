"""The cross-check of two sources: what counts as agreement, likely causes, and the real files against each other."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.cross_check import CAUSES, DISAGREEMENTS_SCHEMA, cross_check
from stockpicker_dagster.market.prices import validate
from stockpicker_dagster.market.sources.files import FilesSource

NYSE = trading_calendar("XNYS")
DAYS = NYSE.sessions(date(2023, 1, 3), date(2023, 6, 30))[:60]
EVENT = DAYS[30]


def prices(**changes: Any) -> pl.DataFrame:
    """One stock's accepted rows; `changes` map a column to the figures that it has on other days than usual."""
    rng = np.random.default_rng(1)
    close = np.round(50 * np.exp(np.cumsum(0.01 * rng.standard_normal(len(DAYS)))), 2)
    rows = pl.DataFrame({"symbol": "AAA", "date": DAYS, "close": close, "volume": 1000.0})
    rows = rows.with_columns(dividend=pl.lit(0.0), split_ratio=pl.lit(1.0))
    for name, figures in changes.items():
        changed = [figures.get(day, value) for day, value in rows.select("date", name).iter_rows()]
        rows = rows.with_columns(pl.Series(name, changed))
    rows = rows.with_columns(open="close", high="close", low="close")
    accepted, rejected = validate(rows)
    assert rejected.is_empty()
    return accepted


def closes() -> dict[date, float]:
    return dict(prices().select("date", "close").iter_rows())


def halved_from(day: date) -> dict[date, float]:
    return {each: close / 2 for each, close in closes().items() if each >= day}


def found(first: pl.DataFrame, second: pl.DataFrame) -> list[tuple[date, str]]:
    return cross_check(first, second).disagreements.select("date", "cause").rows()


def test_what_is_the_same_agrees_whatever_its_basis() -> None:
    """The same stock as traded with its split, and restated for it."""
    traded = prices(close=halved_from(EVENT), split_ratio={EVENT: 2.0})
    restated = prices(close={day: close / 2 for day, close in closes().items()})
    check = cross_check(traded, restated)
    assert (check.compared, check.agreement, check.causes()) == (len(DAYS) - 1, 1.0, {})
    assert dict(check.disagreements.schema) == DISAGREEMENTS_SCHEMA


def test_nothing_in_common_is_no_agreement() -> None:
    check = cross_check(prices(), prices().with_columns(symbol=pl.lit("BBB")))
    assert check.compared == 0
    assert np.isnan(check.agreement)


def test_a_return_over_a_gap_is_compared_only_with_one_over_the_same_gap() -> None:
    gap = prices().filter(pl.col("date") != EVENT)
    assert cross_check(prices(), gap).compared == len(DAYS) - 3
    assert cross_check(gap, gap).compared == len(DAYS) - 2


def test_a_split_in_one_source_only() -> None:
    assert found(prices(), prices(split_ratio={EVENT: 2.0})) == [(EVENT, "split_in_one")]


def test_a_dividend_in_one_source_only() -> None:
    assert found(prices(dividend={EVENT: 0.5}), prices()) == [(EVENT, "dividend_in_one")]


def test_dividends_of_different_sizes() -> None:
    assert found(prices(dividend={EVENT: 0.5}), prices(dividend={EVENT: 0.6})) == [(EVENT, "dividend_of_another_size")]


def test_a_shifted_event() -> None:
    shifted = found(prices(split_ratio={EVENT: 2.0}), prices(split_ratio={DAYS[32]: 2.0}))
    assert shifted == [(EVENT, "shifted_event"), (DAYS[32], "undone_later")]


def test_a_bad_print_is_reversed_on_the_next_row() -> None:
    wrong = found(prices(), prices(close={EVENT: closes()[EVENT] * 1.3}))
    assert wrong == [(EVENT, "bad_print"), (DAYS[31], "undone_later")]


def test_a_stale_row_repeats_the_close_before() -> None:
    stale = found(prices(), prices(close={EVENT: closes()[DAYS[29]]}))
    assert stale == [(EVENT, "stale_row"), (DAYS[31], "undone_later")]


def test_a_spin_off_that_one_source_restates_for() -> None:
    restated = {day: close * 0.9 for day, close in closes().items() if day < EVENT}
    assert found(prices(), prices(close=restated)) == [(EVENT, "restated_in_one")]


def test_a_ticker_of_two_securities() -> None:
    rng = np.random.default_rng(2)
    other = dict(zip(DAYS[10:], 20 * np.exp(np.cumsum(0.02 * rng.standard_normal(50))), strict=True))
    causes = cross_check(prices(), prices(close=other)).causes()
    assert causes["two_securities"] > 45


def test_every_cause_is_explained() -> None:
    assert all(sentence and not sentence.endswith(".") for sentence in CAUSES.values())


@pytest.mark.real_data
def test_two_independent_files_of_the_same_stocks_agree(real_data: Path, tmp_path: Path) -> None:
    """Split-adjusted members of the S&P 500 against as-traded prices of everything, from different vendors."""
    first, last = date(2015, 3, 1), date(2017, 4, 30)
    files = {
        "ever": (real_data / "prices" / "sp500_ever_2000_2024.parquet", "split_adjusted"),
        "all": (real_data / "prices" / "us_all_2015_2017.parquet", "as_traded"),
    }
    tickers = [pl.scan_parquet(path).select("ticker").unique() for path, _ in files.values()]
    common = tickers[0].join(tickers[1], on="ticker", how="semi")
    sources = []
    for name, (path, basis) in files.items():
        rows = pl.scan_parquet(path).with_columns(pl.col("date").cast(pl.Date)).join(common, on="ticker", how="semi")
        rows.filter(pl.col("date").is_between(first, last)).collect().write_parquet(tmp_path / f"{name}.parquet")
        sources.append(FilesSource(name, tmp_path / f"{name}.parquet", basis, NYSE.next_session(first)))  # type: ignore[arg-type]
    ever, everything = [source.everything().prices for source in sources]
    check = cross_check(ever, everything)
    assert check.compared > 270_000
    assert check.agreement > 0.98
    causes = check.causes()
    assert sum(causes.values()) == check.disagreements.height
    # Hardly anything is left without a likely cause; tickers that mean another company in one file explain most.
    assert causes.get("close_differs", 0) < 0.01 * check.disagreements.height
    assert next(iter(causes)) == "two_securities"
    spin_offs = check.disagreements.filter(pl.col("cause") == "restated_in_one").select("symbol", "date").rows()
    assert ("HON", date(2016, 10, 3)) in spin_offs
