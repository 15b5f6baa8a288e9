"""What trades in a mean session: in shares of the last one, whatever was split on the way there."""

from datetime import date, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.market.daily_volume import mean_daily_volumes

FIRST = date(2024, 3, 4)
ratios = st.sampled_from([0.1, 0.5, 1.0, 1.0, 1.0, 1.5, 2.0, 3.0])
days = st.lists(st.tuples(st.integers(0, 10**8), ratios), min_size=1, max_size=20)


def rows(symbol: str, traded: list[tuple[float, float]]) -> pl.DataFrame:
    """A row a day of these volumes and split ratios, the last one on the same day for every symbol."""
    last = FIRST + timedelta(days=30)
    dates = [last - timedelta(days=back) for back in reversed(range(len(traded)))]
    volumes, splits = zip(*traded, strict=True)
    figures = {"symbol": symbol, "date": dates, "volume": [float(each) for each in volumes]}
    return pl.DataFrame({**figures, "split_ratio": list(splits)})


def test_a_mean_worked_out_by_hand() -> None:
    prices = pl.concat([rows("A", [(100, 1.0), (200, 1.0), (301, 1.0)]), rows("B", [(60, 1.0)])])
    # 601 / 3 = 200.33; the newcomer traded on one of the three.
    assert mean_daily_volumes(prices, 3) == {"A": 200.0, "B": 20.0}
    assert mean_daily_volumes(prices.clear(), 0) == {}


@given(days, st.integers(0, 19), st.sampled_from([0.5, 1.5, 2.0, 3.0]))
@settings(max_examples=60, deadline=None)
def test_a_split_in_the_window_changes_the_count_of_shares_and_nothing_else(
    traded: list[tuple[float, float]], at: int, ratio: float
) -> None:
    """The metamorphic relation: the same trade, told with one split more, is in as many shares more at the end."""
    at %= len(traded)
    told = [
        (volume * (ratio if day >= at else 1.0), split * (ratio if day == at else 1.0))
        for day, (volume, split) in enumerate(traded)
    ]
    # Without a split the volumes of all days would have been counted in the shares of the end.
    plain = mean_daily_volumes(rows("A", traded), len(traded))["A"]
    assert abs(mean_daily_volumes(rows("A", told), len(traded))["A"] - ratio * plain) <= ratio + 1
    assert abs(mean_daily_volumes(rows("A", told), len(traded))["A"] - by_hand(told)) <= 1


def by_hand(traded: list[tuple[float, float]]) -> float:
    total, factor = 0.0, 1.0
    for volume, split in reversed(traded):
        total, factor = total + volume * factor, factor * split
    return total / len(traded)


@given(days, days)
@settings(max_examples=20, deadline=None)
def test_other_stocks_and_the_order_of_rows_do_not_matter(
    one: list[tuple[float, float]], other: list[tuple[float, float]]
) -> None:
    together = pl.concat([rows("A", one), rows("B", other)])
    alone = mean_daily_volumes(rows("A", one), 20)
    assert mean_daily_volumes(together, 20)["A"] == alone["A"]
    assert mean_daily_volumes(together.reverse(), 20) == mean_daily_volumes(together, 20)
