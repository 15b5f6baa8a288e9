"""Stored back-test days: each follows from the days before it alone, and summaries follow from stored days alone."""

from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl
import pytest
from scipy import stats

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA
from stockpicker_dagster.research.backtest.books import BookStates
from stockpicker_dagster.research.backtest.days import (
    BACKTEST_SCHEMA,
    BacktestRun,
    backtest_days,
    delisting_sensitivity,
    offset_results,
    overfitting_among,
    returns_matrix,
    run_days,
    score_quality,
    summarize,
    verdict_of,
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
    for day in [*SESSIONS[:7], *SESSIONS[7::10]]:
        assert_same_rows(days_of([day], day), WHOLE.filter(pl.col("date") == day))
    assert dict(WHOLE.schema) == BACKTEST_SCHEMA


NESTED = [name for name, kind in BACKTEST_SCHEMA.items() if isinstance(kind, pl.List)]


def assert_same_rows(found: pl.DataFrame, expected: pl.DataFrame) -> None:
    """To the last bit."""
    assert same_bytes(found.drop(NESTED), expected.drop(NESTED))
    assert found.select(NESTED).rows() == expected.select(NESTED).rows()


# One more day costs a day

RICH = {
    "hold bands": replace(RULES, hold_band=1.5),
    "sleeves": replace(RULES, rebalance=3, sleeves=2),
    "monthly": replace(RULES, rebalance="monthly"),
    "costs by trailing risk": replace(
        RULES, weights="volatility", impact_coefficient=0.5, borrow_bps_per_year=50.0, hard_to_borrow_bps_per_year=900.0
    ),
}
GONE = PRICES.filter(pl.col("symbol") == "S2")
UNKNOWN_DELISTING = pl.DataFrame(
    [("S2", CALENDAR.next_session(GONE["date"][-1]), GONE["date"][-1], "bankruptcy", None, GONE["date"][-1])],
    schema=DELISTINGS_SCHEMA,
    orient="row",
)


def run_from(
    sessions: list[date], rules: Rules, resume_from: BookStates | None = None, delistings: pl.DataFrame | None = None
) -> BacktestRun:
    """`sessions` alone, with nothing but their rows and the look-back that the rules ask for."""
    begin = SESSIONS.index(sessions[0])
    look_back = SESSIONS[max(0, begin - rules.look_back) : begin]
    return run_days(
        PREDICTIONS.filter(pl.col("date").is_in(sessions)),
        PRICES.filter(pl.col("date").is_in([*look_back, *sessions])),
        no_delistings() if delistings is None else delistings,
        sessions,
        sessions,
        rules,
        CALENDAR,
        BOOKS,
        0,
        look_back=look_back,
        resume_from=resume_from,
    )


@pytest.mark.parametrize("name", RICH)
def test_days_that_go_on_from_stored_books_are_those_of_a_run_from_the_start(name: str) -> None:
    """Through the bytes that are stored; with a stock that lists later, one that leaves, and an unknown delisting."""
    rules = RICH[name]
    whole = run_from(SESSIONS, rules, delistings=UNKNOWN_DELISTING)
    start = run_from(SESSIONS[:25], rules, delistings=UNKNOWN_DELISTING)
    rows, state = [start.days], start.states[-1]
    for day in SESSIONS[25:]:
        state = BookStates.from_files(state.to_files())
        later = run_from([day], rules, state, UNKNOWN_DELISTING)
        rows.append(later.days)
        before, state = state, later.states[-1]
    assert_same_rows(pl.concat(rows), whole.days)
    kept = [found.to_files() for found in whole.states]
    assert kept == [before.to_files(), state.to_files()]
    assert [found.session for found in whole.states] == SESSIONS[-2:]
    assert whole.states[-1].equity == whole.days["equity"][-1]


@pytest.mark.parametrize("broken", [{}, {"own.npz": b"no state"}])
def test_files_that_are_no_states_are_refused(broken: dict[str, bytes]) -> None:
    with pytest.raises(InvalidInput):
        BookStates.from_files(broken)


def test_states_of_two_sessions_are_not_mixed() -> None:
    early, late = (run_from(SESSIONS[:count], RULES).states[-1].to_files() for count in (10, 11))
    with pytest.raises(InvalidInput, match="not the states of one"):
        BookStates.from_files({**early, "own.npz": late["own.npz"]})


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
    results = offset_results(WHOLE)
    assert [each.offset for each in results] == [0, 1, 2, 3, 4]
    own = summarize(WHOLE)
    assert own is not None
    # A weekly book decides on Fridays unless told otherwise.
    assert results[4].net_sharpe == pytest.approx(own.performance.net_sharpe)
    assert results[4].gross_sharpe == pytest.approx(own.performance.gross_sharpe)
    assert len({each.net_sharpe for each in results}) == 5
    assert offset_results(WHOLE.clear()) == []


def test_an_offset_is_the_strategy_decided_on_that_day() -> None:
    wednesday = run_from(SESSIONS, replace(RULES, rebalance_offset=2)).days
    net, gross = (returns_matrix(WHOLE[f"offset_{kind}_returns"])[:, 2] for kind in ("net", "gross"))
    assert net.tolist() == wednesday["net_return"].to_list()
    assert gross.tolist() == wednesday["gross_return"].to_list()


def test_random_books_turn_over_as_the_strategy_does() -> None:
    assert WHOLE["random_turnover"].sum() == pytest.approx(WHOLE["turnover"].sum(), rel=0.25)


def test_what_unknown_delistings_could_cost_follows_from_stored_days() -> None:
    """As if the source had known each return to be -30 %."""
    days = run_from(SESSIONS, RULES, delistings=UNKNOWN_DELISTING).days
    known = run_from(SESSIONS, RULES, delistings=UNKNOWN_DELISTING.with_columns(pl.lit(-0.3).alias("return"))).days
    assert days["unknown_delistings"].sum() == 1
    assert days["cautious_net_return"].to_list() == known["net_return"].to_list()
    found = delisting_sensitivity(days)
    assert found is not None
    assert found.unknown == 1
    assert (found.net_sharpe_at_zero, found.net_sharpe_at_minus_30) == pytest.approx(
        [summarize(each).performance.net_sharpe for each in (days, known)]  # type: ignore[union-attr]
    )
    assert delisting_sensitivity(known) is None


def test_the_verdict_is_that_of_the_stored_returns_costs_books_and_offsets() -> None:
    own = WHOLE["net_return"].to_numpy()
    ratio = own.mean() / own.std(ddof=1)
    found = verdict_of(WHOLE, [ratio, 0.0])
    assert (found.sessions, found.trials) == (WHOLE.height, 2)
    assert found.sharpe == pytest.approx(ratio * 252**0.5)
    summary = summarize(WHOLE)
    assert summary is not None
    assert found.permutation == summary.random_books
    assert found.offsets is not None
    ratios = [each.net_sharpe for each in offset_results(WHOLE)]
    assert found.offsets.mean == pytest.approx(np.mean(ratios))
    assert (found.offsets.lowest, found.offsets.highest) == pytest.approx((min(ratios), max(ratios)))
    costly = WHOLE.with_columns(commission=0.001, spread=0.002, impact=0.003, borrow=0.004)
    assert verdict_of(costly, [ratio]).break_even_cost == pytest.approx(1 + own.mean() / 0.01)


def test_a_choice_among_strategies_is_judged_where_there_are_months_enough() -> None:
    returns = np.random.default_rng(3).normal(size=(336, 4)) * 0.01
    assert overfitting_among(returns[:335]) is None
    better = returns.copy()
    better[:, 2] += 0.01
    assert overfitting_among(better) == 0.0
    found = overfitting_among(returns)
    assert found is not None
    assert found > 0.1


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
