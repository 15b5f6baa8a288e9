"""Tries a feature set before it is used: whether it looks ahead, and whether its declaration is true of it.

A set that somebody else wrote is code that this project's tests never saw. It is computed here in every way in which
the same value has to come out: days together and one by one, stocks together and one by one, features together and one
by one. How a module of one's own is found, loaded and remembered is not decided here.
"""

import traceback
from collections.abc import Callable, Sequence
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.features.computation import compute
from stockpicker_dagster.research.features.declaration import Feature, FeatureSet
from stockpicker_dagster.research.features.panel import PANEL_COLUMNS

if TYPE_CHECKING:
    from stockpicker_dagster.market.calendar import TradingCalendar

_START = date(2005, 1, 3)
_STOCKS = 6
_DAYS = 60
"""Days that are computed together; every eighth of them also by itself."""
_LEVELS = ("open", "high", "low", "close", "volume")
_PRICES = ("open", "high", "low", "close")
_RELATIVE, _OF_MEDIAN = 1e-4, 1e-5
"""How much a value may move in a change of units: by this part of itself, or of the feature's median size."""


class DishonestFeature(InvalidInput):
    """A feature looks ahead, or is not what its declaration says."""


def try_on_invented_prices(features: FeatureSet, calendar: "TradingCalendar") -> None:
    """Every trial, on invented prices with splits, dividends, gaps, halts, newcomers and days without volume.

    Raises `DishonestFeature` for the first feature that looks ahead, that needs more sessions or other columns than it
    declares, that depends on other stocks or other features, that is not as invariant to scale as it declares, that is
    defined nowhere, or that fails.
    """
    sessions = calendar.sessions(_START, calendar.offset(_START, features.lookback + _DAYS + 20))
    prices, days = invented_prices(sessions), sessions[-_DAYS:]

    def recompute(name: str, on: Sequence[date]) -> _Recompute:
        return lambda changed: _compute(features.select([name]), changed, on, calendar, sessions[0])

    together = try_on(features, prices, days, calendar, sessions[0])
    for each in features.features:
        whole = together.select("symbol", "date", each.name)
        if whole[each.name].null_count() == whole.height:
            raise DishonestFeature(
                f"feature {each.name!r} is defined for no stock on any of {_DAYS} invented days, so that nothing about "
                "it can be tried; make it give a number where its look-back is there"
            )
        of_last, on_last = whole.filter(pl.col("date") == days[-1]), recompute(each.name, days[-1:])
        _expect_same(
            of_last,
            on_last(prices),
            "depends on the features that are computed beside it",
            "change nothing of the panel in place",
        )
        _expect_honest_lookback(each, of_last, on_last, prices, sessions)
        _expect_honest_inputs(each, of_last, on_last, prices)
        _expect_honest_scale(each, whole, recompute(each.name, days), prices)


def try_on(
    features: FeatureSet,
    prices: pl.DataFrame,
    days: Sequence[date],
    calendar: "TradingCalendar",
    start: date,
    every: int = 8,
) -> pl.DataFrame:
    """The set on `days` (ascending), after trying whether later days or other stocks change anything.

    `prices` and `start` are as `compute` takes them; every so many days are computed by themselves as well. Raises
    `DishonestFeature` for the first feature that does.
    """
    # First the days by themselves, in order: a module that remembers what it was shown has not seen a later day yet.
    alone = {
        day: _compute(features, prices.filter(pl.col("date") <= day), [day], calendar, start) for day in days[::every]
    }
    together = _compute(features, prices, days, calendar, start)
    for day, expected in alone.items():
        _expect_same(
            expected,
            together.filter(pl.col("date") == day),
            "looks ahead, or counts from where reading ends",
            "compute each session from sessions up to it",
        )
    for symbol in together["symbol"].unique().sort().to_list():
        expected = _compute(features, prices.filter(pl.col("symbol") == symbol), days, calendar, start)
        _expect_same(
            expected,
            together.filter(pl.col("symbol") == symbol),
            "depends on other stocks",
            "compute each column of the panel from itself; stocks are compared with each other when they are scaled",
        )
    return together


def invented_prices(sessions: Sequence[date]) -> pl.DataFrame:
    """Random walks in the columns that features depend on; the same for the same sessions, and no two stocks alike."""
    stocks = [_invented_stock(f"S{number}", sessions, number) for number in range(_STOCKS)]
    third = len(sessions) // 3
    stocks[1] = stocks[1].filter(pl.col("date") >= sessions[-third])
    stocks[2] = stocks[2].filter(~pl.col("date").is_between(sessions[-third], sessions[-third + 25]))
    return pl.concat(stocks).sort("date", "symbol")


def _invented_stock(symbol: str, sessions: Sequence[date], seed: int) -> pl.DataFrame:
    rng, count = np.random.default_rng(seed), len(sessions)
    split = np.where(rng.random(count) < 0.01, rng.choice([2.0, 3.0, 0.5], count), 1.0)
    paid = np.where(rng.random(count) < 0.016, 0.007, 0.0)
    growth = np.where(rng.random(count) < 0.05, 0.0, rng.normal(3e-4, 0.02, count))
    close = rng.uniform(10, 200) * np.cumprod(np.exp(growth) * (1 - paid) / split)
    first = close * np.exp(rng.normal(0, 0.008, count))
    frame = pl.DataFrame(
        {
            "symbol": [symbol] * count,
            "date": list(sessions),
            "open": first,
            "high": np.maximum(first, close) * (1 + rng.exponential(0.006, count)),
            "low": np.minimum(first, close) / (1 + rng.exponential(0.006, count)),
            "close": close,
            "volume": np.where(rng.random(count) < 0.02, 0.0, np.round(rng.lognormal(12, 0.6, count))),
            "split_ratio": split,
            "adjustment": split / (1 - paid),
        }
    )
    quiet = (split == 1.0) & (paid == 0.0)
    return frame.filter(pl.Series((rng.random(count) >= 0.03) | ~quiet))


# What a declaration claims --------------------------------------------------------------------------------------------

_Recompute = Callable[[pl.DataFrame], pl.DataFrame]


def _expect_honest_lookback(
    feature: Feature, expected: pl.DataFrame, recompute: _Recompute, prices: pl.DataFrame, sessions: Sequence[date]
) -> None:
    # Events move the level of every adjusted price after them, so only prices and volumes are taken away.
    before = pl.col("date") < sessions[-feature.lookback]
    bare = prices.with_columns(pl.when(before).then(None).otherwise(pl.col(name)).alias(name) for name in _LEVELS)
    _expect_same(
        expected,
        recompute(bare),
        f"needs sessions before the {feature.lookback} of its look-back",
        "declare a longer one",
    )


def _expect_honest_inputs(
    feature: Feature, expected: pl.DataFrame, recompute: _Recompute, prices: pl.DataFrame
) -> None:
    rng = np.random.default_rng(len(PANEL_COLUMNS))
    for column in PANEL_COLUMNS:
        if column not in feature.inputs:
            noise = pl.Series(rng.uniform(0.9, 1.1, prices.height))
            _expect_same(
                expected,
                recompute(prices.with_columns(pl.col(column) * noise)),
                f"depends on {column!r}, which is not among its inputs",
                "declare it",
            )


def _expect_honest_scale(feature: Feature, expected: pl.DataFrame, recompute: _Recompute, prices: pl.DataFrame) -> None:
    """Whether changes of units show that the declaration does not speak of."""
    dearer = [pl.col(name) * 8.0 for name in _PRICES]
    busier = [pl.col("volume") * 8.0]
    split = [pl.col("volume") * 4.0, *(pl.col(name) / 4.0 for name in _PRICES)]
    trials: list[tuple[bool, list[pl.Expr], str, str]] = [
        (feature.scale_invariant, dearer, "every price was multiplied by 8", "scale_invariant=False"),
        (feature.scale_invariant, busier, "every volume was multiplied by 8", "scale_invariant=False"),
        (
            not feature.price_level,
            split,
            "every share was cut in four before the first session",
            "scale_invariant=False and price_level=True, because on split-adjusted prices it knows later splits",
        ),
    ]
    for claimed, change, what, way_out in trials:
        if not claimed:
            continue
        one, other = (
            frame[feature.name].fill_null(np.nan).to_numpy()
            for frame in (expected, recompute(prices.with_columns(change)))
        )
        size = np.nanmedian(np.abs(one)) if np.isfinite(one).any() else 0.0
        moved = np.abs(other - one) > _RELATIVE * np.abs(one) + _OF_MEDIAN * size
        _expect_none(feature.name, expected, one, other, moved, f"changes when {what}", f"declare {way_out}")


# Comparing ------------------------------------------------------------------------------------------------------------


def _expect_same(expected: pl.DataFrame, found: pl.DataFrame, fault: str, way_out: str) -> None:
    """Raises `DishonestFeature` for the first value that has other bits in `found`; both have the same rows."""
    for name in expected.columns[2:]:
        one, other = (frame[name].fill_null(np.nan).to_numpy() for frame in (expected, found))
        _expect_none(name, expected, one, other, one.view(np.int32) != other.view(np.int32), fault, way_out)


def _expect_none(
    name: str,
    rows: pl.DataFrame,
    one: NDArray[np.float32],
    other: NDArray[np.float32],
    differs: NDArray[np.bool_],
    fault: str,
    way_out: str,
) -> None:
    if not differs.any():
        return
    # Two numbers say more than a number and a null, so the first of those is shown if there is one.
    both = differs & np.isfinite(one) & np.isfinite(other)
    place = int(np.flatnonzero(both if both.any() else differs)[0])
    symbol, day = rows.row(place)[:2]
    size = abs(float(other[place]) - float(one[place]))
    apart = f"a difference of {size:.3g}" if np.isfinite(size) else "one of the two is undefined"
    raise DishonestFeature(
        f"feature {name!r} {fault}: of {symbol} on {day} it is {_figure(one[place])} and becomes "
        f"{_figure(other[place])}, {apart}; {way_out}"
    )


def _figure(value: np.float32) -> str:
    return f"{value:.9g}" if np.isfinite(value) else "null"


def _compute(
    features: FeatureSet, prices: pl.DataFrame, days: Sequence[date], calendar: "TradingCalendar", start: date
) -> pl.DataFrame:
    """`compute`; whatever a formula raises becomes a `DishonestFeature` that names it and the line."""
    try:
        return compute(features, prices, days, calendar, start, loaded_from=start)
    except InvalidInput:
        raise
    except Exception as error:
        raise DishonestFeature(_failure(features, error)) from error


def _failure(features: FeatureSet, error: Exception) -> str:
    """Which feature raised, and where in its own file."""
    frames = traceback.extract_tb(error.__traceback__)
    files = {each.formula.__code__.co_filename for each in features.features}
    inside = [frame for frame in frames if frame.filename in files]
    place = f" at {inside[-1].filename}:{inside[-1].lineno}" if inside else ""
    named = next((frame.name for frame in inside if frame.name in features.names), None)
    who = f"feature {named!r}" if named else f"a feature of the set {features.name!r}"
    return f"{who} fails{place}: {type(error).__name__}: {error}; make it give NaN where it is undefined"
