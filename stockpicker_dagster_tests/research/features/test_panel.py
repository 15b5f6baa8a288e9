from datetime import date

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.features import Panel
from stockpicker_dagster_tests.research.price_frames import prices_from, random_market, sessions

DAYS = sessions(date(2020, 1, 2), date(2020, 1, 10))


def test_a_cell_is_the_row_of_its_symbol_and_session_and_nan_without_one() -> None:
    prices = random_market(DAYS, 3).sample(fraction=0.7, shuffle=True, seed=1)
    panel = Panel.from_prices(prices, DAYS, ["S0", "S1", "S2"])
    for row, day in enumerate(DAYS):
        for column, symbol in enumerate(panel.symbols):
            cell = prices.filter((pl.col("date") == day) & (pl.col("symbol") == symbol))
            assert panel.present[row, column] == (cell.height == 1)
            if cell.height:
                assert panel.close[row, column] == cell["close"].item()
                assert panel.volume[row, column] == cell["volume"].item()
            else:
                assert np.isnan(panel.close[row, column])
                assert panel.adjustment[row, column] == 1.0


def test_adjusted_prices_are_the_wealth_of_a_share_held_since_the_anchor() -> None:
    # 100, a 2:1 split to 50, a dividend of 5 that drops 50 to 45, then 54: wealth 100, 100, 100, 120
    close = np.array([100.0, 50.0, 45.0, 54.0])
    adjustment = np.array([1.0, 2.0, 1 / (1 - 5 / 50), 1.0])
    prices = prices_from("A", DAYS[:4], close, adjustment=adjustment, split_ratio=np.array([1.0, 2.0, 1.0, 1.0]))
    panel = Panel.from_prices(prices, DAYS[:4], ["A"])
    np.testing.assert_allclose(panel.adjusted_close[:, 0], [100.0, 100.0, 100.0, 120.0], rtol=1e-14)
    np.testing.assert_allclose(panel.daily_return[1:, 0], [0.0, 0.0, 0.2], atol=1e-14)
    np.testing.assert_array_equal(panel.adjusted_volume[:, 0], [1000.0, 500.0, 500.0, 500.0])
    np.testing.assert_array_equal(panel.dollar_volume[:, 0], close * 1000.0)


def test_a_session_without_a_row_carries_the_factor() -> None:
    prices = prices_from("A", [DAYS[0], DAYS[2]], np.array([30.0, 20.0]), adjustment=np.array([1.0, 1.5]))
    panel = Panel.from_prices(prices, DAYS[:4], ["A"])
    np.testing.assert_array_equal(panel.total_return_factor[:, 0], [1.0, 1.0, 1.5, 1.5])
    np.testing.assert_array_equal(panel.adjusted_close[:, 0], [30.0, np.nan, 30.0, np.nan])


def test_a_return_over_a_gap_is_no_daily_return() -> None:
    panel = Panel.from_prices(prices_from("A", [DAYS[0], DAYS[2], DAYS[3]], np.array([1.0, 2.0, 3.0])), DAYS[:4], ["A"])
    np.testing.assert_array_equal(panel.daily_return[:, 0], [np.nan, np.nan, np.nan, 0.5])


def test_overnight_and_intraday_compound_to_the_daily_return() -> None:
    panel = Panel.from_prices(random_market(DAYS, 3), DAYS, ["S0", "S1", "S2"])
    compound = (1 + panel.overnight_return) * (1 + panel.intraday_return) - 1
    assert np.isfinite(panel.daily_return[1:]).any()
    np.testing.assert_allclose(compound, panel.daily_return, atol=1e-13)


def test_other_sessions_and_symbols_are_left_out() -> None:
    prices = random_market(DAYS, 3)
    panel = Panel.from_prices(prices, DAYS[2:4], ["S2"])
    assert panel.shape == (2, 1)
    assert panel.present.sum() == prices.filter(pl.col("date").is_in(DAYS[2:4]) & (pl.col("symbol") == "S2")).height


def test_a_repeated_row_is_refused_by_name() -> None:
    prices = random_market(DAYS, 2)
    twice = pl.concat([prices, prices.filter((pl.col("symbol") == "S1") & (pl.col("date") == DAYS[3]))])
    with pytest.raises(InvalidInput, match=f"S1 on {DAYS[3]}"):
        Panel.from_prices(twice, DAYS, ["S0", "S1"])


def test_a_missing_column_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="adjustment"):
        Panel.from_prices(random_market(DAYS, 2).drop("adjustment"), DAYS, ["S0"])


def test_what_features_share_is_made_once_for_a_panel() -> None:
    panel, other = (Panel.from_prices(random_market(DAYS, 2), DAYS, ["S0", "S1"]) for _ in range(2))
    made: list[Panel] = []

    def shared(panel: Panel) -> int:
        made.append(panel)
        return len(made)

    assert [panel.once(shared), panel.once(shared), other.once(shared)] == [1, 1, 2]
    assert made == [panel, other]
