import numpy as np
import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest.capacity import capacity

RNG = np.random.default_rng(2)
TRADED, VOLUME, VOLATILITY = RNG.uniform(0.001, 0.02, 500), RNG.uniform(1e6, 1e9, 500), RNG.uniform(0.005, 0.04, 500)


def impact_per_year(capital: float) -> float:
    """The square-root law, trade by trade."""
    notional = TRADED * capital
    cost = sum(
        money * risk * np.sqrt(money / volume) for money, risk, volume in zip(notional, VOLATILITY, VOLUME, strict=True)
    )
    return float(cost) / capital * 252 / 1000


def test_at_the_capacity_impact_has_taken_half_or_all_of_the_return() -> None:
    found = capacity(0.08, TRADED, VOLUME, VOLATILITY, sessions=1000)
    assert impact_per_year(found.half_of_return) == pytest.approx(0.04)
    assert impact_per_year(found.break_even) == pytest.approx(0.08)


def test_one_trade_in_ten_exceeds_a_hundredth_of_volume_at_the_third_figure() -> None:
    capital = capacity(0.08, TRADED, VOLUME, VOLATILITY, sessions=1000).at_one_percent_of_volume
    assert (TRADED * capital > 0.01 * VOLUME).mean() == pytest.approx(0.1, abs=0.005)


def test_a_strategy_without_return_carries_nothing_and_one_without_trades_anything() -> None:
    assert capacity(-0.01, TRADED, VOLUME, VOLATILITY, sessions=1000).break_even == 0.0
    empty = np.empty(0)
    assert capacity(0.1, empty, empty, empty, sessions=10).break_even == np.inf


def test_volume_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidInput, match="dollar_volume that is not positive"):
        capacity(0.1, TRADED, np.zeros(500), VOLATILITY, sessions=10)
    with pytest.raises(InvalidInput, match="one figure of each"):
        capacity(0.1, TRADED[:3], VOLUME, VOLATILITY, sessions=10)
