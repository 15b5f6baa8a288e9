import math

import numpy as np
import pytest
from scipy import stats

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest.significance.deflated_sharpe import (
    SharpeSample,
    deflated_sharpe,
    expected_best_of,
    minimum_track_record,
    probabilistic_sharpe,
)

YEAR = 252


def normal(sharpe: float, sessions: int) -> SharpeSample:
    """A sample of exactly this annual ratio with the moments of a normal distribution."""
    return SharpeSample(sessions, sharpe / math.sqrt(YEAR), 0.0, 3.0)


def test_a_sample_has_the_moments_that_scipy_finds() -> None:
    returns = stats.skewnorm.rvs(5, size=700, random_state=3) * 0.01
    sample = SharpeSample.of(returns)
    assert sample.sharpe == pytest.approx(returns.mean() / returns.std(ddof=1))
    assert sample.skewness == pytest.approx(stats.skew(returns))
    assert sample.kurtosis == pytest.approx(stats.kurtosis(returns, fisher=False))


def test_the_published_example_of_the_deflated_ratio_is_met() -> None:
    # Bailey and Lopez de Prado (2014), section "A numerical example": an annual ratio of 2.5 over 1250 days of 250 a
    # year, skewness -3, kurtosis 10, the best of 100 trials whose annual ratios have the variance 1/2.
    sample = SharpeSample(1250, 2.5 / math.sqrt(250), -3.0, 10.0)
    hurdle = expected_best_of(100, 0.5 / 250)
    assert hurdle == pytest.approx(0.1132, abs=5e-5)
    assert probabilistic_sharpe(sample, hurdle) == pytest.approx(0.9004, abs=5e-5)


def test_the_best_of_many_worthless_trials_is_as_good_as_simulation_says() -> None:
    # The formula is asymptotic: within 2 % of the mean of the maximum of N standard normal draws.
    rng = np.random.default_rng(0)
    for trials in (10, 100, 1000):
        best = rng.standard_normal((20_000_000 // (trials * 100), trials)).max(axis=1).mean()
        assert expected_best_of(trials, 1.0) == pytest.approx(best, rel=0.025)
    assert expected_best_of(1, 1.0) == 0.0


@pytest.mark.parametrize(("trials", "power"), [(1, 0.89), (10, 0.36), (100, 0.09)])
def test_the_power_published_for_a_true_ratio_of_one_over_ten_years_is_met(trials: int, power: float) -> None:
    sessions, rng = 10 * YEAR, np.random.default_rng(trials)
    estimates = 1 / math.sqrt(YEAR) + rng.standard_normal(20_000) / math.sqrt(sessions)
    # The published figures take the variance of one worthless trial: no other ratio is known here.
    others = [math.nan] * (trials - 1)
    found = [
        deflated_sharpe(SharpeSample(sessions, estimate, 0.0, 3.0), [estimate, *others]) >= 0.975
        for estimate in estimates
    ]
    assert np.mean(found) == pytest.approx(power, abs=0.01)


def test_copies_of_one_trial_do_not_pass_for_no_search() -> None:
    sample = normal(1.0, 10 * YEAR)
    assert deflated_sharpe(sample, [sample.sharpe] * 50) < deflated_sharpe(sample, [sample.sharpe])


def test_more_trials_or_a_wider_spread_of_them_never_help() -> None:
    sample, rng = normal(1.2, 8 * YEAR), np.random.default_rng(2)
    few, many = rng.standard_normal(5) * 0.02, rng.standard_normal(80) * 0.02
    assert deflated_sharpe(sample, many) < deflated_sharpe(sample, few)
    assert deflated_sharpe(sample, 5 * many) < deflated_sharpe(sample, many)


def test_a_trial_that_never_traded_counts_as_a_trial() -> None:
    sample = normal(1.0, 10 * YEAR)
    ratios = [sample.sharpe, 0.01, -0.02]
    assert deflated_sharpe(sample, [*ratios, math.nan]) < deflated_sharpe(sample, ratios)


def test_the_minimum_track_record_is_where_the_confidence_is_reached() -> None:
    sample = SharpeSample(500, 0.06, -0.7, 6.0)
    needed = minimum_track_record(sample, 0.95)
    at_last = SharpeSample(math.ceil(needed), sample.sharpe, sample.skewness, sample.kurtosis)
    a_little_before = SharpeSample(math.floor(needed) - 1, sample.sharpe, sample.skewness, sample.kurtosis)
    assert probabilistic_sharpe(a_little_before) < 0.95 <= probabilistic_sharpe(at_last)
    assert minimum_track_record(SharpeSample(500, -0.01, 0.0, 3.0)) == math.inf


@pytest.mark.parametrize(
    ("returns", "says"),
    [([0.01] * 20, "at least 21"), ([0.01] * 30, "never move"), ([0.0, float("nan")] * 20, "row 1")],
)
def test_what_cannot_be_judged_is_refused(returns: list[float], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        SharpeSample.of(returns)


def test_no_trial_and_a_negative_variance_are_refused() -> None:
    with pytest.raises(InvalidInput, match="0 trials"):
        expected_best_of(0, 1.0)
    with pytest.raises(InvalidInput, match="variance of -1"):
        expected_best_of(3, -1.0)
    with pytest.raises(InvalidInput, match=r"confidence of 1\.0"):
        minimum_track_record(normal(1.0, 100), 1.0)
