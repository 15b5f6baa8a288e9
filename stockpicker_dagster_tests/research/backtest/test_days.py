"""Stored back-test days: each follows from the days before it alone, and summaries follow from stored days alone."""

from datetime import date

import numpy as np
import polars as pl
import pytest
from scipy import stats

from stockpicker_dagster.research.backtest.days import (
    BACKTEST_SCHEMA,
    backtest_days,
    offset_spread,
    returns_matrix,
    score_quality,
    summarize,
)
from stockpicker_dagster.research.backtest.engine import Rules
from stockpicker_dagster.research.labels import forward_returns
from stockpicker_dagster_tests.research.price_frames import (
    CALENDAR,
    START,
    no_delistings,
    random_market,
    same_bytes,
    sessions,
)

SESSIONS = sessions(START, START.replace(month=4))
PRICES = random_market(SESSIONS, 10, seed=7)
RULES = Rules(long=3, short=3, rebalance="weekly")
BOOKS = 20


def _predictions() -> pl.DataFrame:
    rng = np.random.default_rng(1)
    rows = PRICES.select("symbol", "date")
    return rows.with_columns(score=pl.Series(rng.normal(size=rows.height)))


PREDICTIONS = _predictions()


def days_of(wanted: list[date], through: date) -> pl.DataFrame:
    """The rows of `wanted`, computed when nothing after `through` was known."""
    known = pl.col("date") <= through
    return backtest_days(
        PREDICTIONS.filter(known),
        PRICES.filter(known),
        no_delistings(),
        [day for day in SESSIONS if day <= through],
        wanted,
        RULES,
        CALENDAR,
        BOOKS,
        0,
    )


WHOLE = days_of(SESSIONS, SESSIONS[-1])


def test_a_range_and_its_days_give_the_same_bytes_whatever_comes_later() -> None:
    nested = ["positions", "random_net_returns", "fresh_gross_returns"]
    for day in [*SESSIONS[:7], *SESSIONS[7::10]]:
        alone, row = days_of([day], day), WHOLE.filter(pl.col("date") == day)
        assert same_bytes(alone.drop(nested), row.drop(nested))
        assert alone.select(nested).rows() == row.select(nested).rows()
    assert dict(WHOLE.schema) == BACKTEST_SCHEMA


def test_equity_compounds_the_net_returns_and_positions_weigh_what_is_exposed() -> None:
    equity = RULES.capital * (1 + WHOLE["net_return"].to_numpy()).cumprod()
    np.testing.assert_allclose(WHOLE["equity"], equity, rtol=1e-9)
    for row in WHOLE.iter_rows(named=True):
        weights = [position["weight"] for position in row["positions"]]
        assert sum(map(abs, weights)) == pytest.approx(row["gross_exposure"], abs=1e-9)
        assert sum(weights) == pytest.approx(row["net_exposure"], abs=1e-9)
        assert sum(weight > 0 for weight in weights) == row["longs"]
        symbols = [position["symbol"] for position in row["positions"]]
        assert symbols == sorted(symbols)


def test_every_day_holds_one_return_of_every_random_book() -> None:
    for column in ("random_net_returns", "fresh_gross_returns"):
        matrix = returns_matrix(WHOLE[column])
        assert matrix.shape == (len(SESSIONS), BOOKS)
        assert matrix[3].tolist() == WHOLE[column][3].to_list()
        assert matrix.std(axis=1).max() > 0


def test_days_before_the_first_score_have_no_rows() -> None:
    later = SESSIONS[5:]
    empty = backtest_days(PREDICTIONS, PRICES, no_delistings(), later, SESSIONS[:5], RULES, CALENDAR, BOOKS, 0)
    assert empty.is_empty()
    assert dict(empty.schema) == BACKTEST_SCHEMA
    assert backtest_days(PREDICTIONS, PRICES, no_delistings(), [], SESSIONS, RULES, CALENDAR, BOOKS, 0).is_empty()


def test_the_summary_is_that_of_the_stored_returns() -> None:
    summary = summarize(WHOLE)
    assert summary is not None
    assert (summary.first, summary.last) == (SESSIONS[0], SESSIONS[-1])
    returns = WHOLE["net_return"].to_numpy()
    assert summary.performance.net_sharpe == pytest.approx(returns.mean() / returns.std(ddof=1) * 252**0.5)
    books = returns_matrix(WHOLE["random_net_returns"])
    better = (books.mean(axis=0) / books.std(axis=0, ddof=1)) < returns.mean() / returns.std(ddof=1)
    assert summary.random_books is not None
    assert summary.random_books.books == BOOKS
    assert summary.random_books.percentile == pytest.approx(100 * better.mean(), abs=5.0)
    assert summarize(WHOLE.clear()) is None


def test_a_book_that_never_traded_is_not_ranked_among_random_ones() -> None:
    idle = summarize(WHOLE.with_columns(net_return=0.0, gross_return=0.0))
    assert idle is not None
    assert idle.random_books is None
    assert idle.fresh_picks is None


def test_every_weekday_is_tried_and_the_strategys_own_equals_its_back_test() -> None:
    results = offset_spread(PREDICTIONS, PRICES, no_delistings(), SESSIONS, RULES, CALENDAR)
    assert [each.offset for each in results] == [0, 1, 2, 3, 4]
    own = summarize(WHOLE)
    assert own is not None
    # A weekly book decides on Fridays unless told otherwise.
    assert results[4].net_sharpe == pytest.approx(own.performance.net_sharpe)
    assert results[4].gross_sharpe == pytest.approx(own.performance.gross_sharpe)
    assert len({each.net_sharpe for each in results}) == 5


def test_score_quality_is_the_mean_rank_correlation_with_the_returns_that_followed() -> None:
    quality = score_quality(PREDICTIONS, PRICES, no_delistings(), CALENDAR, 5)
    returns = forward_returns(PRICES, no_delistings(), CALENDAR, 5)
    joined = PREDICTIONS.join(returns, on=["symbol", "date"]).drop_nulls("label_return")
    daily = [stats.spearmanr(part["score"], part["label_return"])[0] for _, part in joined.group_by("date")]
    assert quality is not None
    assert quality.days == len(daily)
    assert quality.mean_rank_ic == pytest.approx(np.mean(daily))
    assert score_quality(PREDICTIONS.clear(), PRICES, no_delistings(), CALENDAR, 5) is None
    assert score_quality(PREDICTIONS, PRICES.head(20), no_delistings(), CALENDAR, 5) is None
