from datetime import date, timedelta

import numpy as np
import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest.performance import sharpe
from stockpicker_dagster.research.backtest.significance.stability import break_even_cost, offset_spread, sub_periods

DAYS = [date(2020, 12, 1) + timedelta(days=number) for number in range(401)]
RETURNS = np.random.default_rng(1).standard_normal(401) * 0.01


def test_every_year_and_half_has_the_ratio_of_its_own_days() -> None:
    found = sub_periods(RETURNS, DAYS)
    assert found.by_year == {
        year: sharpe([value for value, day in zip(RETURNS, DAYS, strict=True) if day.year == year])
        for year in (2020, 2021)
    }
    assert found.halves == (sharpe(RETURNS[:200]), sharpe(RETURNS[200:]))


def test_a_year_of_a_few_days_is_no_year() -> None:
    assert set(sub_periods(RETURNS[:380], DAYS[:380]).by_year) == {2020, 2021}
    assert set(sub_periods(RETURNS[15:380], DAYS[15:380]).by_year) == {2021}


def test_the_share_of_good_years_counts_years() -> None:
    good = np.where(np.array([day.year for day in DAYS]) == 2020, 0.01, -0.01) + RETURNS / 10
    assert sub_periods(good, DAYS).positive_years == 0.5


def test_at_the_break_even_cost_nothing_is_left() -> None:
    cost = np.full(401, 0.0002)
    factor = break_even_cost(RETURNS, cost)
    assert (RETURNS + cost - factor * cost).mean() == pytest.approx(0.0, abs=1e-15)
    assert np.isnan(break_even_cost(RETURNS, np.zeros(401)))


def test_one_offset_has_no_spread() -> None:
    assert offset_spread([0.4]) is None
    assert offset_spread([0.4, float("nan")]) is None
    spread = offset_spread([0.4, 0.1, 0.4])
    assert spread is not None
    assert (spread.lowest, spread.highest) == (0.1, 0.4)
    assert spread.mean == pytest.approx(0.3)


def test_lengths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidInput, match="401 returns for 400 sessions"):
        sub_periods(RETURNS, DAYS[:400])
    with pytest.raises(InvalidInput, match="401 returns and 400 costs"):
        break_even_cost(RETURNS, np.zeros(400))
