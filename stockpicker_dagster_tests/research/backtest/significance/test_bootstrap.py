import numpy as np
import pytest
from arch.bootstrap import optimal_block_length
from scipy.signal import lfilter

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest.performance import sharpes
from stockpicker_dagster.research.backtest.significance.bootstrap import bootstrap_interval, mean_block_length


def autoregressive(coefficient: float, sessions: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(sessions + 200)
    return lfilter([1.0], [1.0, -coefficient], noise)[200:]


def means(returns: np.ndarray) -> np.ndarray:
    return returns.mean(axis=0)


@pytest.mark.parametrize("coefficient", [0.3, 0.6, 0.9])
def test_the_block_length_is_about_that_of_the_package_arch(coefficient: float) -> None:
    # They choose the window one lag wider than the paper does, so that the two agree within that.
    ours = [mean_block_length(autoregressive(coefficient, 2500, seed)) for seed in range(8)]
    theirs = [optimal_block_length(autoregressive(coefficient, 2500, seed))["stationary"].iloc[0] for seed in range(8)]
    assert np.median(ours) == pytest.approx(np.median(theirs), rel=0.15)


def test_independent_returns_need_no_blocks_and_persistent_ones_long_ones() -> None:
    lengths = [mean_block_length(autoregressive(coefficient, 2500, 1)) for coefficient in (0.0, 0.5, 0.9)]
    assert lengths[0] < 3 < lengths[1] < lengths[2] < 150
    assert mean_block_length(np.zeros(100)) == 1.0


def test_the_interval_of_a_mean_has_the_width_that_theory_gives() -> None:
    # The long-run variance of an AR(1) with unit noise is 1 / (1 - phi)^2.
    for coefficient, tolerance in ((0.0, 0.08), (0.6, 0.2)):
        returns = autoregressive(coefficient, 5000, 3)
        found = bootstrap_interval(returns, means, resamples=1500)
        width = 2 * 1.96 / (1 - coefficient) / np.sqrt(5000)
        assert found.high - found.low == pytest.approx(width, rel=tolerance)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        returns = autoregressive(0.4, 400, seed) + 0.05
        found = bootstrap_interval(returns, means, confidence=0.9, resamples=300, seed=seed)
        covered += found.low <= 0.05 <= found.high
    # Blocks under-cover a little in samples this short; 0.9 +- 0.07 is three standard errors and that.
    assert covered / 200 == pytest.approx(0.9, abs=0.07)


def test_a_seed_fixes_the_interval_and_another_moves_it_a_little() -> None:
    returns = autoregressive(0.2, 600, 8) * 0.01
    first, again, other = (bootstrap_interval(returns, sharpes, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert first.low == pytest.approx(other.low, abs=0.3)


def test_blocks_of_one_session_are_the_plain_bootstrap() -> None:
    returns = autoregressive(0.9, 3000, 4)
    plain = bootstrap_interval(returns, means, block_length=1.0)
    assert plain.high - plain.low == pytest.approx(2 * 1.96 * returns.std() / np.sqrt(3000), rel=0.08)


def test_settings_out_of_range_and_a_figure_that_never_exists_are_refused() -> None:
    returns = autoregressive(0.0, 100, 1)
    with pytest.raises(InvalidInput, match=r"confidence 1\.0"):
        bootstrap_interval(returns, means, confidence=1.0)
    with pytest.raises(InvalidInput, match=r"block length of 0\.5"):
        bootstrap_interval(returns, means, block_length=0.5)
    with pytest.raises(InvalidInput, match="judge a book that traded"):
        bootstrap_interval(np.zeros(100), sharpes)
