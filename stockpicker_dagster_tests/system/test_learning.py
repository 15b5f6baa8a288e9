"""Small versions of benchmarks/learning.py: what is planted is found, and noise is not believed.

Markets are simulated and go through the pipeline's own features, scaling, labels, split, dataset, book and verdict. The
signals are many times larger than real ones, so that a year of forty stocks is enough to learn from.
"""

from datetime import date
from functools import lru_cache
from typing import Any

import pytest

from stockpicker_dagster.market.sources.simulated import NO_ALPHA, Interaction, PlantedAlpha, planted
from stockpicker_dagster.research.algorithms import known_algorithms
from stockpicker_dagster_tests.training.simulated_study import Study

STOCKS, LOOKBACK = 40, 63
PERIODS = (
    (date(2015, 1, 2), date(2015, 12, 31)),
    (date(2016, 1, 4), date(2016, 6, 30)),
    (date(2016, 7, 1), date(2017, 3, 31)),
)
LARGE = planted(reversal=-4.0e-3, volatility=-3.0e-3)
CROSSED = PlantedAlpha((), (Interaction("reversal", "volatility", -6.0e-3),))
QUICK: dict[str, dict[str, Any]] = {
    "linear": {},
    "boosted_trees": {"learning_rate": 0.1, "rows_in_leaf": 50, "patience": 20},
    "neural_network": {"ensemble": 2, "hidden_layers": 2, "learning_rate": 0.005},
    "deep_reinforcement_learning": {"steps": 1024},
}
SUPERVISED = ("linear", "boosted_trees", "neural_network")


@lru_cache(maxsize=2)
def study(alpha: PlantedAlpha, seed: int, horizon_days: int) -> Study:
    return Study.of(alpha, seed, STOCKS, PERIODS, horizon_days, LOOKBACK)


def share(alpha: PlantedAlpha, name: str) -> float:
    """The rank IC on later days as a share of that of the true expected returns."""
    market = study(alpha, 1, 1)
    found, achievable = market.rank_ics(market.fit(name, QUICK[name]))
    assert achievable > 0.1
    return found / achievable


@pytest.mark.parametrize("name", SUPERVISED)
def test_a_planted_signal_is_recovered(name: str) -> None:
    assert share(LARGE, name) >= 0.7


def test_what_no_line_sees_is_found_by_trees_and_networks() -> None:
    line, trees, network = (share(CROSSED, name) for name in SUPERVISED)
    assert min(trees, network) > max(0.5, line + 0.2)


def test_noise_is_not_believed() -> None:
    """Of markets in which nothing can be predicted, one of forty is expected to be believed, and none of these is."""
    for seed in (11, 12):
        market = study(NO_ALPHA, seed, 5)
        for name in known_algorithms():
            words = market.words(market.fit(name, QUICK[name]), 8)
            assert words == "cannot be told from luck", (seed, name)


def test_a_planted_signal_is_believed() -> None:
    """So that the test above can fail. Of 79 random books p is at least .0125, too much for a strong result."""
    market = study(LARGE, 1, 1)
    assert market.words(market.fit("linear", {}), 8) == "weak"
