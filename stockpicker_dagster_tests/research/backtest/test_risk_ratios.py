import json
from collections.abc import Callable
from pathlib import Path

import empyrical
import numpy as np
import pandas as pd
import pytest
import quantstats.stats as quantstats
from scipy import stats

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest import risk_ratios as ratios
from stockpicker_dagster.research.backtest.performance import annual_return, max_drawdown, sharpe, volatility

RETURNS = stats.t.rvs(4, size=800, random_state=11) * 0.01 + 0.0004
SERIES = pd.Series(RETURNS, index=pd.bdate_range("2020-01-01", periods=800))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (annual_return, empyrical.annual_return),
        (volatility, empyrical.annual_volatility),
        (sharpe, empyrical.sharpe_ratio),
        (ratios.sortino, empyrical.sortino_ratio),
        (ratios.downside_risk, empyrical.downside_risk),
        (ratios.calmar, empyrical.calmar_ratio),
        (ratios.tail_ratio, empyrical.tail_ratio),
        (ratios.value_at_risk, empyrical.value_at_risk),
        (ratios.expected_shortfall, empyrical.conditional_value_at_risk),
        (ratios.omega, empyrical.omega_ratio),
        (lambda returns: -max_drawdown(returns).depth, empyrical.max_drawdown),
        (ratios.skewness, stats.skew),
        (lambda returns: ratios.kurtosis(returns) - 3.0, stats.kurtosis),
    ],
)
def test_a_figure_shared_with_empyrical_or_scipy_is_equal(
    ours: Callable[[np.ndarray], float], theirs: Callable[[np.ndarray], float]
) -> None:
    assert ours(RETURNS) == pytest.approx(theirs(RETURNS), rel=1e-8)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (sharpe, quantstats.sharpe),
        (ratios.sortino, quantstats.sortino),
        (ratios.omega, quantstats.omega),
        (ratios.ulcer_index, lambda returns: quantstats.ulcer_index(returns) * np.sqrt(799 / 800)),
        (volatility, quantstats.volatility),
        (lambda returns: -max_drawdown(returns).depth, quantstats.max_drawdown),
        (ratios.tail_ratio, quantstats.tail_ratio),
    ],
)
def test_a_figure_shared_with_quantstats_is_equal(
    ours: Callable[[np.ndarray], float], theirs: Callable[[pd.Series], float]
) -> None:
    # quantstats divides the squared drawdowns by n - 1 where Martin's index divides by n.
    assert ours(RETURNS) == pytest.approx(theirs(SERIES), rel=1e-8)


def test_where_quantstats_differs_the_docstring_says_how() -> None:
    n = len(RETURNS)
    assert quantstats.skew(SERIES) == pytest.approx(ratios.skewness(RETURNS) * np.sqrt(n * (n - 1)) / (n - 2))
    normal = stats.norm.ppf(0.05, RETURNS.mean(), RETURNS.std(ddof=1))
    assert quantstats.value_at_risk(SERIES) == pytest.approx(normal)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("published", "figure"),
    [
        ("MeanAbsoluteDeviation", ratios.mean_absolute_deviation),
        ("kurtosis_moment", ratios.kurtosis),
        ("kurtosis_excess", lambda returns: ratios.kurtosis(returns) - 3.0),
        ("skewness_sample", lambda returns: ratios.skewness(returns) * np.sqrt(24 * 23) / 22),
        ("PainIndex", ratios.pain_index),
        ("MartinRatio", lambda returns: ratios.martin_ratio(returns, 12)),
        ("UpsideRisk_MAR0.005", lambda returns: ratios.upside_risk(returns, 0.005)),
        ("DownsideFrequency_MAR0.005", lambda returns: ratios.downside_frequency(returns, 0.005)),
        ("BernardoLedoitRatio", ratios.omega),
        ("DRatio", ratios.d_ratio),
        ("OmegaSharpeRatio_MAR0.005", lambda returns: ratios.omega_sharpe(returns, 0.005)),
        ("Kappa_l2_MAR0.005", lambda returns: ratios.kappa(returns, 0.005)),
    ],
)
def test_bacons_published_values_are_met_to_the_digits_printed(
    real_data: Path, published: str, figure: Callable[[np.ndarray], float]
) -> None:
    oracle = json.loads((real_data / "oracles" / "bacon_performance_metrics.json").read_text())
    text = str(oracle["expected"][published])
    half_a_digit = 0.5 * 10.0 ** -len(text.partition(".")[2])
    # Some of the book's figures are cut off rather than rounded.
    assert figure(np.array(oracle["portfolio"]) / 100) == pytest.approx(float(text), abs=2 * half_a_digit)


def test_drawdowns_start_from_the_money_put_in() -> None:
    assert ratios.drawdowns([-0.1, 0.0, 0.2]) == pytest.approx([0.1, 0.1, 0.0])
    assert ratios.pain_index([-0.1, 0.0, 0.2]) == pytest.approx(0.2 / 3)


def test_the_expected_shortfall_is_no_better_than_the_value_at_risk() -> None:
    for tail in (0.01, 0.05, 0.3):
        assert ratios.expected_shortfall(RETURNS, tail) <= ratios.value_at_risk(RETURNS, tail)


def test_scaling_returns_scales_risks_and_leaves_ratios() -> None:
    for figure in (ratios.downside_risk, ratios.mean_absolute_deviation, ratios.value_at_risk):
        assert figure(3 * RETURNS) == pytest.approx(3 * figure(RETURNS))
    for figure in (ratios.sortino, ratios.omega, ratios.tail_ratio, ratios.kappa, ratios.skewness, ratios.kurtosis):
        assert figure(3 * RETURNS) == pytest.approx(figure(RETURNS))


@pytest.mark.parametrize(
    "figure", [ratios.sortino, ratios.calmar, ratios.pain_ratio, ratios.omega, ratios.tail_ratio, ratios.kappa]
)
def test_without_the_risk_that_it_divides_by_a_ratio_does_not_exist(figure: Callable[[list[float]], float]) -> None:
    assert np.isnan(figure([]))
    assert np.isnan(figure([0.0, 0.0, 0.0]))


def test_a_value_that_is_not_finite_and_an_impossible_tail_are_refused() -> None:
    with pytest.raises(InvalidInput, match="row 1"):
        ratios.sortino([0.1, float("nan")])
    with pytest.raises(InvalidInput, match="tail of 5"):
        ratios.value_at_risk(RETURNS, 5)


def test_the_summary_has_the_figures_of_the_functions_and_how_long_positions_are_held() -> None:
    returns = 0.01 * np.random.default_rng(3).normal(size=100)
    # A tenth of a book of 200 % is sold and bought again every session, so that it lasts ten.
    found = ratios.risk_summary(returns, np.full(100, 0.4), np.full(100, 2.0))
    assert found.holding_sessions == pytest.approx(10.0)
    assert found.sortino == ratios.sortino(returns)
    assert found.expected_shortfall == ratios.expected_shortfall(returns)
    assert np.isnan(ratios.risk_summary(returns, np.zeros(100), np.full(100, 2.0)).holding_sessions)
