"""Rolling figures: those of pandas, and the same whatever comes later."""

import numpy as np
import pandas as pd

from stockpicker_dagster.research.backtest.rolling import rolling_sharpes, rolling_window


def test_rolling_ratios_equal_those_of_pandas() -> None:
    returns = np.random.default_rng(5).normal(0.0004, 0.01, 600)
    rolling = pd.Series(returns).rolling(63)
    expected = (rolling.mean() / rolling.std() * np.sqrt(252.0)).to_numpy()
    np.testing.assert_allclose(rolling_sharpes(returns[:, None], 63)[:, 0], expected, rtol=1e-8)


def test_a_book_that_stands_still_has_a_rolling_ratio_of_zero() -> None:
    np.testing.assert_array_equal(rolling_sharpes(np.zeros((4, 1)), 2)[:, 0], [np.nan, 0.0, 0.0, 0.0])


def test_the_window_fits_twice_or_there_is_none() -> None:
    assert [rolling_window(sessions) for sessions in (125, 126, 503, 504)] == [None, 63, 63, 252]


def test_later_sessions_change_no_bit_of_earlier_ones() -> None:
    returns = np.random.default_rng(6).normal(0.0, 0.01, (300, 4))
    np.testing.assert_array_equal(rolling_sharpes(returns[:200], 63), rolling_sharpes(returns, 63)[:200])
