"""The figures against pandas, closed forms, and relations that must hold."""

import math
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest.engine import Rules, run
from stockpicker_dagster.research.backtest.performance import (
    Drawdown,
    Performance,
    annual_return,
    hit_rate,
    max_drawdown,
    per_year,
    sharpe,
    sharpes,
    summary,
    volatility,
)
from stockpicker_dagster_tests.research.backtest.random_markets import random_world

RETURNS = st.lists(st.floats(-0.2, 0.2), min_size=2, max_size=60)
FIGURES = (
    "net_return",
    "gross_return",
    "turnover",
    "gross_exposure",
    "net_exposure",
    "longs",
    "shorts",
    "commission",
    "spread",
    "impact",
    "borrow",
)


@settings(max_examples=50, deadline=None)
@given(RETURNS)
def test_figures_are_those_of_pandas(values: list[float]) -> None:
    series = pd.Series(values)
    wealth = (1 + series).cumprod()
    assert volatility(values) == pytest.approx(series.std() * math.sqrt(252), abs=1e-12)
    assert annual_return(values) == pytest.approx(wealth.iloc[-1] ** (252 / len(values)) - 1, rel=1e-9)
    peaks = wealth.cummax().clip(lower=1.0)
    assert max_drawdown(values).depth == pytest.approx((1 - wealth / peaks).max(), abs=1e-12)
    if series.std() > 1e-9:
        assert sharpe(values) == pytest.approx(series.mean() / series.std() * math.sqrt(252), rel=1e-6, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(RETURNS, st.floats(0.1, 10))
def test_sharpe_ignores_leverage_and_turns_with_the_sign(values: list[float], leverage: float) -> None:
    returns = np.array(values)
    if returns.std() > 1e-6:
        assert sharpe(returns * leverage) == pytest.approx(sharpe(returns), rel=1e-6, abs=1e-9)
        assert sharpe(-returns) == pytest.approx(-sharpe(returns))


def test_sharpes_of_many_books_are_each_books_own() -> None:
    returns = np.random.default_rng(1).normal(0.001, 0.01, size=(250, 7))
    np.testing.assert_allclose(sharpes(returns), [sharpe(column) for column in returns.T])


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ([0.5, -0.5, 0.2, 1.0, -0.1], Drawdown(0.5, 3)),
        ([-0.1, -0.1, 0.1], Drawdown(0.19, 3)),
        ([0.1, 0.0, 0.2], Drawdown(0.0, 0)),
        ([1.0, -1.0, 0.0], Drawdown(1.0, 2)),
        ([1.0, 0.0, -0.5, 0.0, 1.0, 0.0], Drawdown(0.5, 3)),
        ([], Drawdown(0.0, 0)),
    ],
)
def test_drawdowns_by_hand(returns: list[float], expected: Drawdown) -> None:
    """The length runs from the last session at the peak to the first one back at it, or to the end."""
    found = max_drawdown(returns)
    assert found.depth == pytest.approx(expected.depth)
    assert found.length == expected.length


def test_idle_sessions_count_neither_as_hits_nor_as_misses() -> None:
    assert hit_rate([0.0, 0.1, -0.1, 0.1, 0.0, 0.1]) == 0.75
    assert math.isnan(hit_rate([0.0, 0.0]))


def test_a_year_has_252_sessions() -> None:
    assert annual_return([0.001] * 252) == pytest.approx(1.001**252 - 1)
    assert per_year([0.01] * 10) == pytest.approx(2.52)


def test_figures_that_are_undefined_are_nan() -> None:
    for figure in (annual_return, hit_rate, per_year):
        assert math.isnan(figure([]))
    for figure in (volatility, sharpe):
        assert math.isnan(figure([0.01]))
    assert math.isnan(sharpe([0.01, 0.01, 0.01]))
    assert annual_return([0.5, -1.0]) == -1.0


@pytest.mark.parametrize("figure", [annual_return, volatility, sharpe, max_drawdown, hit_rate, per_year])
def test_a_missing_return_is_never_skipped(figure: object) -> None:
    assert callable(figure)
    with pytest.raises(InvalidInput, match="row 1 is not finite"):
        figure([0.1, float("nan"), 0.1])


def test_the_summary_gathers_the_figures() -> None:
    world = random_world(12)
    market = world.market()
    rules = Rules(2, 2, commission_bps=5, spread_bps=10, borrow_bps_per_year=100)
    history = run(world.panel(market), market, rules, world.decisions(rules))
    found = summary(**{name: getattr(history, name) for name in FIGURES})
    assert found.sessions == 60
    assert found.net_sharpe == sharpe(history.net_return)
    assert found.gross_sharpe == sharpe(history.gross_return)
    assert found.net_sharpe < found.gross_sharpe
    assert found.max_drawdown == max_drawdown(history.net_return).depth
    assert found.turnover_per_year == pytest.approx(history.turnover.mean() * 252)
    assert found.mean_gross_exposure == pytest.approx(history.gross_exposure.mean())
    drag = (history.gross_return - history.net_return).mean() * 252
    assert found.cost_per_year == pytest.approx(drag)
    assert found.cost_per_year == pytest.approx(
        found.commission_per_year + found.spread_per_year + found.impact_per_year + found.borrow_per_year
    )


def test_an_empty_summary_has_no_figures_and_uneven_columns_are_refused() -> None:
    empty = summary(**{name: [] for name in FIGURES})
    undefined = {field.name for field in fields(Performance)} - {"sessions", "max_drawdown", "max_drawdown_sessions"}
    assert all(math.isnan(getattr(empty, name)) for name in undefined)
    with pytest.raises(InvalidInput, match=r"\[1, 2\] sessions"):
        summary(**{name: [0.0] * (1 if name == "longs" else 2) for name in FIGURES})
