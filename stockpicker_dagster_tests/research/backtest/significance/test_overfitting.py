from itertools import combinations

import numpy as np
import pytest
from scipy.stats import rankdata

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest.significance.overfitting import probability_of_overfitting


def obvious(returns: np.ndarray, blocks: int) -> float:
    """The definition, one split at a time."""
    parts = np.array_split(returns, blocks)
    count = 0
    splits = list(combinations(range(blocks), blocks // 2))
    for split in splits:
        inside = np.concatenate([parts[block] for block in split])
        outside = np.concatenate([parts[block] for block in range(blocks) if block not in split])
        best = (inside.mean(axis=0) / inside.std(axis=0)).argmax()
        rank = rankdata(outside.mean(axis=0) / outside.std(axis=0))[best] / (returns.shape[1] + 1)
        count += np.log(rank / (1 - rank)) <= 1e-12
    return count / len(splits)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_papers_definition(seed: int) -> None:
    returns = np.random.default_rng(seed).standard_normal((96, 5)) * 0.01
    assert probability_of_overfitting(returns, 8) == pytest.approx(obvious(returns, 8))


def test_a_choice_among_noise_is_overfitted_half_of_the_time() -> None:
    found = [
        probability_of_overfitting(np.random.default_rng(seed).standard_normal((640, 10)), 8) for seed in range(120)
    ]
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)


def test_a_configuration_that_really_is_better_is_found_again() -> None:
    returns = np.random.default_rng(5).standard_normal((2520, 10))
    returns[:, 4] += 0.15
    assert probability_of_overfitting(returns) < 0.01


def test_a_remainder_is_left_out_at_the_start() -> None:
    returns = np.random.default_rng(6).standard_normal((100, 3))
    assert probability_of_overfitting(returns, 8) == probability_of_overfitting(returns[4:], 8)


@pytest.mark.parametrize(
    ("shape", "blocks", "says"),
    [((100, 1), 8, "no choice"), ((100, 3), 7, "even number"), ((10, 3), 8, "at least two sessions each")],
)
def test_what_holds_no_choice_is_refused(shape: tuple[int, int], blocks: int, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        probability_of_overfitting(np.zeros(shape), blocks)


def test_a_configuration_without_a_figure_is_refused_and_a_still_one_has_no_answer() -> None:
    returns = np.random.default_rng(7).standard_normal((64, 3))
    with pytest.raises(InvalidInput, match="NaN or infinite"):
        probability_of_overfitting(np.where(returns == returns[3, 1], np.nan, returns), 8)
    returns[:, 0] = 0.0
    assert np.isnan(probability_of_overfitting(returns, 8))
