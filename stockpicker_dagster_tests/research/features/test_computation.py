from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.features import (
    FeatureSet,
    Panel,
    anchor,
    compute,
    feature,
    feature_set,
    first_needed,
)
from stockpicker_dagster.research.features.computation import compute_by_year
from stockpicker_dagster_tests.research.price_frames import CALENDAR, START, random_market, same_bytes, sessions

FACTORS = feature_set("factors")
DAYS = sessions(START, date(2020, 6, 30))
PRICES = random_market(DAYS, 6)
RANGE = DAYS[480:560]
"""Crosses a year, and with it a change of anchor."""


@pytest.fixture(scope="module")
def in_one_range() -> pl.DataFrame:
    return compute(FACTORS, PRICES, RANGE, CALENDAR, START)


def test_the_anchor_is_the_first_session_of_the_year_of_the_earliest_lookback() -> None:
    day = date(2020, 2, 3)
    assert CALENDAR.offset(day, -21).year == 2020
    assert anchor(day, 21, CALENDAR, START) == date(2020, 1, 2)
    assert CALENDAR.offset(day, -22).year == 2019
    assert anchor(day, 22, CALENDAR, START) == date(2019, 1, 2)


def test_the_anchor_is_clipped_at_the_first_session_of_the_source() -> None:
    assert anchor(date(2018, 3, 1), 253, CALENDAR, START) == START
    assert anchor(date(2018, 3, 1), 253, CALENDAR, date(2018, 1, 20)) == date(2018, 1, 22)
    assert anchor(date(2018, 12, 28), 3, CALENDAR, date(2018, 1, 20)) == date(2018, 1, 22)
    assert anchor(date(1990, 1, 4), 253, CALENDAR, date(1990, 1, 2)) == date(1990, 1, 2)


def test_a_day_before_the_source_or_no_session_is_refused() -> None:
    with pytest.raises(InvalidInput, match="2017-12-29"):
        anchor(date(2017, 12, 29), 10, CALENDAR, START)
    with pytest.raises(InvalidInput, match="2020-02-01"):
        anchor(date(2020, 2, 1), 10, CALENDAR, START)


def test_first_needed_is_enough_and_less_is_refused() -> None:
    needed = first_needed(RANGE, FACTORS.lookback, CALENDAR, START)
    enough = PRICES.filter(pl.col("date") >= needed)
    assert same_bytes(
        compute(FACTORS, enough, RANGE[:3], CALENDAR, START), compute(FACTORS, PRICES, RANGE[:3], CALENDAR, START)
    )
    with pytest.raises(InvalidInput, match=f"need prices from {needed}"):
        compute(FACTORS, PRICES.filter(pl.col("date") > date(2018, 6, 1)), RANGE, CALENDAR, START)


def test_an_anchor_that_was_read_and_is_empty_is_no_missing_history() -> None:
    late = PRICES.filter(pl.col("date") >= DAYS[300])
    read_from = first_needed(RANGE, FACTORS.lookback, CALENDAR, START)
    found = compute(FACTORS, late, RANGE[:2], CALENDAR, START, loaded_from=read_from)
    assert found["momentum_12_1"].is_null().all()
    assert found["reversal_1m"].is_not_null().any()


def test_every_stock_with_a_price_row_has_a_row_and_no_other(in_one_range: pl.DataFrame) -> None:
    expected = PRICES.filter(pl.col("date").is_in(RANGE)).select("symbol", "date")
    assert in_one_range.select("symbol", "date").equals(expected)
    assert in_one_range.columns == ["symbol", "date", *FACTORS.names]
    assert set(in_one_range.schema.values()) == {pl.String(), pl.Date(), pl.Float32()}


def test_a_range_equals_its_days_one_by_one(in_one_range: pl.DataFrame) -> None:
    daily = [compute(FACTORS, PRICES.filter(pl.col("date") <= day), [day], CALENDAR, START) for day in RANGE]
    assert same_bytes(pl.concat(daily), in_one_range)


def test_every_day_of_a_range_starts_at_its_own_anchor() -> None:
    @feature(lookback=253, inputs=["close"])
    def sessions_since_anchor(panel: Panel) -> np.ndarray:
        """The row of the session in its panel (an invention of this test)."""
        return np.repeat(np.arange(float(panel.shape[0]))[:, None], panel.shape[1], axis=1)

    found = compute(FeatureSet.of("mine", [sessions_since_anchor]), PRICES, RANGE, CALENDAR, START)
    for day, value in found.group_by("date").agg(pl.col("sessions_since_anchor").unique()).iter_rows():
        assert value == [CALENDAR.index(day) - CALENDAR.index(anchor(day, 253, CALENDAR, START))]
    assert len({anchor(day, 253, CALENDAR, START) for day in RANGE}) == 2


@settings(max_examples=25, deadline=None)
@given(
    days=st.sets(st.sampled_from(RANGE), min_size=1, max_size=6),
    symbols=st.sets(st.sampled_from([f"S{number}" for number in range(6)]), min_size=1),
    seed=st.integers(0, 1000),
)
def test_other_days_other_symbols_and_the_order_of_rows_change_nothing(
    days: set[date], symbols: set[str], seed: int
) -> None:
    prices = PRICES.filter(pl.col("symbol").is_in(list(symbols))).sample(fraction=1.0, shuffle=True, seed=seed)
    found = compute(FACTORS, prices, list(days), CALENDAR, START, loaded_from=START)
    whole = compute(FACTORS, PRICES, RANGE, CALENDAR, START)
    expected = whole.filter(pl.col("date").is_in(list(days)) & pl.col("symbol").is_in(list(symbols)))
    assert same_bytes(found, expected)


def test_a_selection_has_the_bytes_of_the_whole_set(in_one_range: pl.DataFrame) -> None:
    names = ["reversal_1w", "price_to_average_50"]
    chosen = compute(FACTORS.select(names), PRICES, RANGE, CALENDAR, START)
    assert same_bytes(chosen, in_one_range.select("symbol", "date", *names))


def test_too_little_observed_is_null_never_nan(in_one_range: pl.DataFrame) -> None:
    floats = in_one_range.select(FACTORS.names)
    assert floats.null_count().sum_horizontal().item() > 0
    assert not np.isnan(floats.fill_null(0.0).to_numpy()).any()


def test_no_days_and_empty_days_give_empty_frames_of_the_same_schema(in_one_range: pl.DataFrame) -> None:
    nothing = compute(FACTORS, PRICES, [], CALENDAR, START)
    no_rows = compute(FACTORS, PRICES.clear(), RANGE[:2], CALENDAR, START)
    assert nothing.is_empty()
    assert no_rows.is_empty()
    assert nothing.schema == no_rows.schema == in_one_range.schema


EVERY_SET = pytest.mark.parametrize("features", [FACTORS, feature_set("alpha158")], ids=["factors", "alpha158"])


@EVERY_SET
def test_a_longer_history_changes_nothing_once_the_anchor_is_reached(features: FeatureSet) -> None:
    for day in (RANGE[0], RANGE[-1]):
        needed = first_needed([day], features.lookback, CALENDAR, START)
        assert DAYS[0] <= needed < day
        shorter = compute(features, PRICES.filter(pl.col("date") >= needed), [day], CALENDAR, START)
        assert same_bytes(shorter, compute(features, PRICES, [day], CALENDAR, START))


@EVERY_SET
def test_a_year_at_a_time_gives_what_the_range_gives(features: FeatureSet) -> None:
    pieces = list(compute_by_year(features, PRICES.lazy(), RANGE, CALENDAR, START))
    assert [days for days, _ in pieces] == [[day for day in RANGE if day.year == year] for year in (2019, 2020)]
    whole = compute(features, PRICES, RANGE, CALENDAR, START)
    assert same_bytes(pl.concat(table for _, table in pieces), whole)


def test_days_of_one_anchor_that_are_worked_on_apart_give_what_each_gives_alone() -> None:
    """More days than are computed at a time."""
    features = feature_set("alpha158")
    days = DAYS[70:330]
    whole = compute(features, PRICES, days, CALENDAR, START)
    for day in (days[0], days[125], days[126], days[-1]):
        alone = compute(features, PRICES, [day], CALENDAR, START)
        assert same_bytes(alone, whole.filter(pl.col("date") == day))


def test_a_formula_may_say_only_what_is_wanted() -> None:
    @feature(lookback=1, inputs=["close"])
    def wanted_alone(panel: Panel) -> np.ndarray:
        """C_t, of the sessions wanted."""
        return panel.close[panel.since :].astype(np.float32)

    found = compute(FeatureSet.of("mine", [wanted_alone]), PRICES, RANGE[:3], CALENDAR, START)
    prices = PRICES.filter(pl.col("date").is_in(RANGE[:3])).sort("date", "symbol")
    assert found["wanted_alone"].equals(prices["close"].cast(pl.Float32).alias("wanted_alone"), check_names=False)


def test_what_float32_cannot_hold_is_null() -> None:
    @feature(lookback=1, inputs=["close"])
    def endless(panel: Panel) -> np.ndarray:
        """C_t x 10^300 in every other column, undefined in the first."""
        values = panel.close * np.where(np.arange(panel.shape[1]) % 2, 1e300, 1.0)
        values[:, 0] = np.inf
        return values

    found = compute(FeatureSet.of("mine", [endless]), PRICES, RANGE[:1], CALENDAR, START)
    assert found["endless"].is_null().to_list() == [number == 0 or number % 2 == 1 for number in range(found.height)]
