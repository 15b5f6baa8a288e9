"""The trial passes what ships, and finds each way in which a feature of one's own can break the rules."""

from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.research.features import FeatureSet, Panel, feature, feature_set, rolling
from stockpicker_dagster.research.features.declaration import Formula
from stockpicker_dagster.research.features.honesty import (
    DishonestFeature,
    invented_prices,
    try_on,
    try_on_invented_prices,
)
from stockpicker_dagster_tests.research.price_frames import CALENDAR, START, random_market, sessions


def own(
    formula: Formula, lookback: int = 6, inputs: Sequence[str] = ("close", "adjustment"), **claims: bool
) -> FeatureSet:
    return FeatureSet.of("own", [feature(lookback=lookback, inputs=inputs, **claims)(formula)])


def weekly(panel: Panel) -> np.ndarray:
    """P_t / P_{t-5} - 1."""
    return panel.adjusted_close / rolling.lag(panel.adjusted_close, 5) - 1.0


def tomorrow(panel: Panel) -> np.ndarray:
    """P_{t+1} / P_t - 1."""
    ahead = np.full(panel.shape, np.nan)
    ahead[:-1] = panel.adjusted_close[1:] / panel.adjusted_close[:-1] - 1.0
    return ahead


def by_last(panel: Panel) -> np.ndarray:
    """P_t over the last P that was read: nothing shifts, and everything looks ahead."""
    return panel.adjusted_close / panel.adjusted_close[-1]


def whole_history(panel: Panel) -> np.ndarray:
    """P_t over the mean of all P that were read."""
    return panel.adjusted_close / np.nanmean(panel.adjusted_close, axis=0)


def against_market(panel: Panel) -> np.ndarray:
    """r_t less those of all stocks."""
    return panel.daily_return - np.nansum(panel.daily_return, axis=1, keepdims=True)


def in_place(panel: Panel) -> np.ndarray:
    """P_t / P_{t-5} - 1, after doubling the volume of everybody who comes after."""
    panel.volume[:] = 2.0 * panel.volume
    return weekly(panel)


def dollar_volume(panel: Panel) -> np.ndarray:
    """C V."""
    return panel.close * panel.volume


def price(panel: Panel) -> np.ndarray:
    """C."""
    return panel.close


def fails(panel: Panel) -> np.ndarray:
    """Nothing."""
    return panel.close / panel.shape["sessions"]  # type: ignore[call-overload]


def nowhere(panel: Panel) -> np.ndarray:
    """Nothing at all."""
    return np.full(panel.shape, np.nan)


class Remembering:
    """P_{t+1} / P_t - 1 where P_{t+1} was ever seen, in this call or an earlier one."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, date], float] = {}

    def __call__(self, panel: Panel) -> np.ndarray:
        keys = [[(symbol, session) for symbol in panel.symbols] for session in panel.sessions]
        for row, of_session in enumerate(keys):
            self.seen.update(zip(of_session, panel.close[row].tolist(), strict=True))
        later = [
            [self.seen.get((symbol, CALENDAR.next_session(session)), np.nan) for symbol, session in of_session]
            for of_session in keys
        ]
        return np.array(later) / panel.close - 1.0


def test_a_feature_that_remembers_later_days_from_an_earlier_call_is_found() -> None:
    remembering = Remembering()

    def remembered(panel: Panel) -> np.ndarray:
        """C_{t+1} / C_t - 1, once it is known."""
        return remembering(panel)

    with pytest.raises(DishonestFeature, match="'remembered' looks ahead"):
        try_on_invented_prices(own(remembered, 2, ("close",)), CALENDAR)


def test_an_honest_feature_passes() -> None:
    try_on_invented_prices(own(weekly), CALENDAR)
    try_on_invented_prices(own(dollar_volume, 1, ("close", "volume"), scale_invariant=False), CALENDAR)
    try_on_invented_prices(own(price, 1, ("close",), scale_invariant=False, price_level=True), CALENDAR)


def test_the_factors_that_ship_pass() -> None:
    try_on_invented_prices(feature_set("factors"), CALENDAR)


@pytest.mark.parametrize(
    ("formula", "declared", "fault"),
    [
        (
            tomorrow,
            {},
            "'tomorrow' looks ahead.* of S0 on 20.* is null and becomes .*; compute each session from",
        ),
        (by_last, {}, "'by_last' looks ahead.* it is 1 and becomes .*, a difference of"),
        (whole_history, {}, "'whole_history' looks ahead"),
        (against_market, {}, "'against_market' depends on other stocks: of S0 on 20"),
        (weekly, {"lookback": 5}, "'weekly' needs sessions before the 5 of its look-back.* declare a longer one"),
        (weekly, {"inputs": ("close",)}, "'weekly' depends on 'adjustment', which is not among its inputs"),
        (
            dollar_volume,
            {"inputs": ("close", "volume")},
            "'dollar_volume' changes when every price was multiplied by 8",
        ),
        (
            price,
            {"inputs": ("close",), "scale_invariant": False},
            "'price' changes when every share was cut in four.* price_level=True",
        ),
        (fails, {}, r"'fails' fails at .*test_honesty.py:\d+: TypeError"),
        (nowhere, {}, "'nowhere' is defined for no stock on any of 60 invented days"),
    ],
)
def test_a_feature_that_breaks_a_rule_is_refused_by_name(
    formula: Formula, declared: dict[str, object], fault: str
) -> None:
    with pytest.raises(DishonestFeature, match=fault):
        try_on_invented_prices(own(formula, **declared), CALENDAR)  # type: ignore[arg-type]


def test_a_feature_that_changes_the_panel_is_found_by_its_neighbour() -> None:
    inputs = ("close", "adjustment")
    both = FeatureSet.of(
        "own",
        [
            feature(lookback=6, inputs=inputs)(in_place),
            feature(lookback=1, inputs=("close", "volume"), scale_invariant=False)(dollar_volume),
        ],
    )
    with pytest.raises(DishonestFeature, match="'dollar_volume' depends on the features that are computed beside it"):
        try_on_invented_prices(both, CALENDAR)


def test_looking_ahead_is_found_on_real_prices_too() -> None:
    days = sessions(START, date(2018, 4, 30))
    prices = random_market(days, 4)
    assert try_on(own(weekly), prices, days[-20:], CALENDAR, START).height > 0
    with pytest.raises(DishonestFeature, match=r"'tomorrow' looks ahead.* null and becomes .*undefined"):
        try_on(own(tomorrow), prices, days[-20:], CALENDAR, START)


def test_the_refusal_says_day_stock_and_both_values() -> None:
    days = sessions(START, date(2018, 4, 30))
    prices = random_market(days, 4)

    def late(panel: Panel) -> np.ndarray:
        """1, and 3 on the last session but one once there is a last one."""
        values = np.ones(panel.shape)
        if panel.sessions[-1] > days[-9]:
            values[panel.sessions.index(days[-9]), 0] = 3.0
        return values

    expected = f"'late' looks ahead, .*: of S0 on {days[-9]} it is 1 and becomes 3, a difference of 2"
    with pytest.raises(DishonestFeature, match=expected):
        try_on(own(late), prices, days[-17:], CALENDAR, START)


def test_invented_prices_are_ugly_and_always_the_same() -> None:
    days = sessions(START, date(2019, 3, 1))
    prices = invented_prices(days)
    assert prices.equals(invented_prices(days))
    assert (prices["volume"] == 0.0).any()
    assert (prices["split_ratio"] != 1.0).any()
    counts = prices.group_by("date").len()["len"]
    assert counts.min() < counts.max() == 6
    assert prices.group_by("symbol").agg(pl.col("date").min()).get_column("date").max() > days[0]
