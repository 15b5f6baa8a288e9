"""Information coefficients against scipy, their significance against statsmodels."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest.signal_quality import (
    daily_ic,
    daily_rank_ic,
    decay,
    newey_west_t,
    signal_quality,
)

NAN = float("nan")
SEEDS = st.integers(0, 10**6)


def panels(seed: int, sessions: int = 12, names: int = 15) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels with ties and holes."""
    rng = np.random.default_rng(seed)
    scores, labels = np.round(rng.normal(size=(sessions, names)), 1), rng.normal(size=(sessions, names))
    labels += 0.3 * scores
    scores[rng.random(scores.shape) < 0.2] = NAN
    labels[rng.random(scores.shape) < 0.2] = NAN
    return scores, labels


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_ic_and_rank_ic_are_those_of_scipy(seed: int) -> None:
    scores, labels = panels(seed)
    ic, rank_ic = daily_ic(scores, labels), daily_rank_ic(scores, labels)
    for t in range(len(scores)):
        both = ~np.isnan(scores[t]) & ~np.isnan(labels[t])
        if both.sum() < 3 or np.ptp(scores[t, both]) == 0.0:
            continue
        assert ic[t] == pytest.approx(stats.pearsonr(scores[t, both], labels[t, both]).statistic, abs=1e-12)
        assert rank_ic[t] == pytest.approx(stats.spearmanr(scores[t, both], labels[t, both]).statistic, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(1, 11))
def test_a_days_ic_ignores_other_days_and_later_symbols(seed: int, count: int) -> None:
    scores, labels = panels(seed)
    later = np.full((len(scores), 3), NAN)
    for figure in (daily_ic, daily_rank_ic):
        whole = figure(np.hstack([scores, later]), np.hstack([labels, later]))
        assert whole[:count].tobytes() == figure(scores[:count], labels[:count]).tobytes()


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_rank_ic_sees_only_the_order(seed: int) -> None:
    scores, labels = panels(seed)
    np.testing.assert_allclose(daily_rank_ic(np.exp(3 * scores), labels**3), daily_rank_ic(scores, labels))
    np.testing.assert_allclose(daily_rank_ic(-scores, labels), -daily_rank_ic(scores, labels))


def test_a_day_that_says_nothing_has_no_ic() -> None:
    scores = np.array([[1.0, 2, NAN, NAN], [1, 1, 1, 1], [1, 2, 3, 4], [1, 2, 3, 4]])
    labels = np.array([[1.0, 2, 3, 4], [1, 2, 3, 4], [0.1, 0.1, 0.1, 0.1], [1, 2, 3, 4]])
    for figure in (daily_ic, daily_rank_ic):
        np.testing.assert_allclose(figure(scores, labels), [NAN, NAN, NAN, 1.0])


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 8), st.integers(20, 80))
def test_the_t_statistic_is_that_of_statsmodels(seed: int, lag: int, count: int) -> None:
    series = np.convolve(np.random.default_rng(seed).normal(0.1, 1.0, size=count + 4), np.ones(5), mode="valid")
    fitted = sm.OLS(series, np.ones(count)).fit(cov_type="HAC", cov_kwds={"maxlags": lag, "use_correction": False})
    assert newey_west_t(series, lag) == pytest.approx(float(fitted.tvalues[0]), rel=1e-9)


def test_overlapping_windows_lower_the_t_statistic() -> None:
    series = np.convolve(np.random.default_rng(2).normal(0.1, 1.0, size=505), np.ones(5), mode="valid")
    assert newey_west_t(series, 5) < 0.7 * newey_west_t(series, 0)


def test_missing_days_are_dropped_and_too_few_have_no_t_statistic() -> None:
    series = np.random.default_rng(2).normal(size=30)
    with_holes = np.insert(series, [3, 9, 9], NAN)
    assert newey_west_t(with_holes, 4) == newey_west_t(series, 4)
    assert math.isnan(newey_west_t(series[:5], 4))
    assert math.isnan(newey_west_t(np.full(30, 0.02), 4))


def test_the_summary_is_the_mean_over_days_with_a_figure() -> None:
    scores, labels = panels(3, sessions=60)
    scores[7] = NAN
    found = signal_quality(scores, labels, horizon=5)
    rank_ic = daily_rank_ic(scores, labels)
    assert found.days == 59
    assert found.mean_rank_ic == pytest.approx(np.nanmean(rank_ic))
    assert found.mean_ic == pytest.approx(np.nanmean(daily_ic(scores, labels)))
    assert found.rank_ic_t == newey_west_t(rank_ic, 5)
    assert found.mean_rank_ic > 0.1


def test_decay_is_the_quality_at_each_horizon() -> None:
    scores, labels = panels(3, sessions=60)
    noise = np.random.default_rng(9).normal(size=labels.shape)
    found = decay(scores, {1: labels, 20: noise})
    assert found[1] == signal_quality(scores, labels, 1)
    assert found[20].horizon == 20
    assert abs(found[20].mean_rank_ic) < found[1].mean_rank_ic


def test_nothing_scored_gives_nan() -> None:
    empty = np.full((4, 6), NAN)
    found = signal_quality(empty, empty, 5)
    assert found.days == 0
    assert math.isnan(found.mean_ic)
    assert math.isnan(found.rank_ic_t)


def test_panels_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(InvalidInput, match="not the same panel"):
        daily_ic(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(InvalidInput, match="infinite"):
        daily_ic(np.array([[1.0, np.inf, 2.0]]), np.ones((1, 3)))
    with pytest.raises(InvalidInput, match="lag of -1"):
        newey_west_t([1.0, 2.0], -1)
