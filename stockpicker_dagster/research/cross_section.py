"""Puts the features of one day on a common scale across the stocks of that day.

Every date is treated by itself: its scale, its median and its quantiles come from the stocks given for that date and
from nothing else, so that no later day and no other universe reaches it. Which stocks those are is decided elsewhere.
The conventions follow Gu, Kelly and Xiu (2020), section 2.1, and scikit-learn's scalers of the same names.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from stockpicker_dagster.compute import Compute
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.neutralization import Exposures, neutralize_blocks
from stockpicker_dagster.research.order_statistics import (
    Floats,
    Keys,
    extremes,
    key_type,
    neighbours,
    quantile,
    rank_keys,
    write_keys,
)

Method = Literal["standard", "minmax", "rank", "robust"]
Imputation = Literal["median", "neutral"]
Vector = NDArray[np.float64]
Blocks = NDArray[np.int64]

VARIANCE_FLOOR = 1e-12
"""A variance below this part of the mean square is rounding noise: the feature is constant on that day."""
NORMAL_IQR = 0.7413
"""The interquartile range of a normal distribution times this is its standard deviation."""
NEUTRAL: dict[Method, float] = {"standard": 0.0, "minmax": 0.5, "rank": 0.0, "robust": 0.0}
"""What a stock of which nothing is known gets: the middle of the method's scale."""


_PROCESSORS = os.cpu_count() or 1


def scale(
    frame: pl.DataFrame,
    features: Sequence[str],
    method: Method = "standard",
    imputation: Imputation = "median",
    winsorize: tuple[float, float] | None = None,
    exposures: Exposures | None = None,
) -> pl.DataFrame:
    """Scale and impute `features`, one date at a time, over all rows of that date.

    With x over the observed values of one feature on one date (null, NaN and infinite ones are missing):

    - `standard`: (x - mean) / population standard deviation; 0 if constant
    - `minmax`: (x - min) / (max - min), in [0, 1]; 0.5 if constant
    - `rank`: (average rank - 1) / (n - 1) - 0.5, in [-0.5, 0.5]; 0 if constant
    - `robust`: (x - median) / (0.7413 x interquartile range), over the standard deviation where the quartiles
      coincide; 0 if constant

    `winsorize` moves values outside these two quantiles of the day (linear interpolation) onto them, before scaling.
    `exposures` are what the features shall say nothing about: after winsorizing and before scaling, each feature is
    replaced by its residual of the day's regression on them (see `neutralization`).
    A missing value is imputed after scaling, so that it changes no statistic: by the `median` of the day's scaled
    values, or by the method's `neutral` value (0; for `minmax` 0.5). A feature that nobody has on a day, and the
    only stock of a day, get the neutral value.

    Takes `symbol`, `date` and the features; returns those columns, features as Float32 and always finite, sorted by
    date, then symbol. Raises `InvalidInput` for an unknown method or imputation, a missing column, a repeated row, or
    quantiles that are not 0 <= low < high <= 1.

    >>> from datetime import date
    >>> day = pl.DataFrame({"symbol": ["A", "B", "C"], "date": [date(2024, 1, 2)] * 3, "size": [1.0, 2.0, None]})
    >>> scale(day, ["size"], "minmax")["size"].to_list()
    [0.0, 1.0, 0.5]
    """
    _check(frame, features, method, imputation, winsorize)
    ordered = _in_order(frame.select("symbol", "date", *features))
    blocks = date_blocks(ordered["date"])
    exposed = None if exposures is None else exposures.of(ordered)

    def one(name: str) -> pl.Series:
        values = winsorize_blocks(_floats(ordered[name]), blocks, winsorize)
        if exposed is not None:
            values = neutralize_blocks(values, blocks, exposed)
        scaled = scale_blocks(values, blocks, method, imputation).astype(np.float32, copy=False)
        # By way of Arrow, which takes over the memory instead of copying it.
        return pl.Series(name, pa.array(scaled))

    # Each column is worked on by one thread alone: how many there are changes no byte.
    with ThreadPoolExecutor(_PROCESSORS) as pool:
        return ordered.select("symbol", "date").with_columns(pool.map(one, features))


def scale_at(
    where: Compute,
    frame: pl.DataFrame,
    features: Sequence[str],
    method: Method = "standard",
    imputation: Imputation = "median",
    winsorize: tuple[float, float] | None = None,
    exposures: Exposures | None = None,
) -> pl.DataFrame:
    """`scale`, computed at `where`; that changes nothing, as dates do not see each other."""
    _check(frame, features, method, imputation, winsorize)
    # Not the exposures themselves: their rows go where the rows of their dates go.
    named = None if exposures is None else (exposures.sector, exposures.others)
    work = partial(_scale_for, tuple(features), method, imputation, winsorize, named)
    frames = [frame.select("symbol", "date", *features), *([] if exposures is None else [exposures.table])]
    schema = {"symbol": pl.String, "date": pl.Date, **dict.fromkeys(features, pl.Float32)}
    return where.run(work, frames, "date", schema)


def _scale_for(
    features: Sequence[str],
    method: Method,
    imputation: Imputation,
    winsorize: tuple[float, float] | None,
    exposed_to: tuple[str | None, tuple[str, ...]] | None,
    frame: pl.DataFrame,
    exposures: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """`scale`, frames last: for all dates, or for any of them."""
    known = None if exposed_to is None or exposures is None else Exposures(exposures, *exposed_to)
    return scale(frame, features, method, imputation, winsorize, known)


def scale_blocks(values: Floats, blocks: Blocks, method: Method, imputation: Imputation) -> Floats:
    """`scale` for one column, in its own precision: block i is `values[blocks[i]:blocks[i + 1]]`, NaN where missing."""
    scaled, by_median, neutral = np.empty_like(values), imputation == "median", NEUTRAL[method]
    if method == "rank":
        observed, keys, spare = _scratch(values, blocks, 2)
        order, ranks = np.empty((2, len(observed)), dtype=np.int32), np.empty(len(observed))
        _rank_blocks(values, blocks, by_median, neutral, observed, keys, spare, order, ranks, scaled)
    else:
        observed, keys = _scratch(values, blocks, 1)
        kind = get_args(Method).index(method)
        _scale_blocks(values, blocks, kind, by_median, neutral, observed, keys, scaled)
    return scaled


def winsorize_blocks(values: Floats, blocks: Blocks, quantiles: tuple[float, float] | None) -> Floats:
    """Move the values of each block that lie outside its two quantiles onto them; None leaves all as they are."""
    if quantiles is None:
        return values
    limited = np.empty(len(values))
    observed, keys = _scratch(values, blocks, 1)
    _winsorize_blocks(values, blocks, *quantiles, observed, keys, limited)
    return limited


def date_blocks(dates: pl.Series) -> Blocks:
    """Where each run of equal dates begins, and at last the number of rows; `dates` is sorted."""
    days = dates.to_physical().to_numpy()
    return (
        np.concatenate(([0], np.flatnonzero(days[1:] != days[:-1]) + 1, [len(days)])) if len(days) else np.zeros(1, int)
    )


def finite_values(column: pl.Series) -> Vector:
    """The column as float64, NaN where it is null, NaN or infinite."""
    values = column.cast(pl.Float64).to_numpy()
    return np.where(np.isfinite(values), values, np.nan)


def _floats(column: pl.Series) -> Floats:
    """The column in its own precision, NaN where it is null; infinite values stay."""
    floats = column if column.dtype == pl.Float32 else column.cast(pl.Float64)
    return floats.fill_null(np.nan).to_numpy()


def _in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows by date, then symbol. Raises `InvalidInput` for a repeated one."""
    if _ascends(frame).all():
        return frame
    ordered = frame.sort("date", "symbol")
    repeated = ~_ascends(ordered)
    if repeated.any():
        symbol, day = ordered.filter(repeated).select("symbol", "date").row(0)
        raise InvalidInput(f"the features hold more than one row for {symbol} on {day}; keep one row a day and symbol")
    return ordered


def _ascends(frame: pl.DataFrame) -> pl.Series:
    """Whether each row comes after the one before it, by date, then symbol."""
    date, symbol = pl.col("date"), pl.col("symbol")
    later = (date > date.shift(1)) | ((date == date.shift(1)) & (symbol > symbol.shift(1)))
    return frame.select(later.fill_null(True).alias("later"))["later"]


def _scratch(values: Floats, blocks: Blocks, keys: int) -> tuple[NDArray[Any], ...]:
    """Room for the observed values of the longest block, and as often as asked for, for their keys."""
    longest = int(np.diff(blocks).max(initial=0))
    kind = key_type(values)
    return np.empty(longest, dtype=values.dtype), *(np.empty(longest, dtype=kind) for _ in range(keys))


@njit(cache=True, nogil=True)
def _gather(block: Floats, observed: Floats) -> int:
    """Puts the finite values of a block side by side; returns how many there are."""
    count = 0
    for value in block:
        observed[count] = value
        count += abs(value) < np.inf
    return count


@njit(cache=True, nogil=True)
def _centre(values: Floats) -> tuple[float, float]:
    """Mean and population standard deviation; a deviation of 0 if constant."""
    total, square = _sums(values, 0.0)
    mean = total / len(values)
    _, variance = _sums(values, mean)
    return mean, np.sqrt(variance / len(values)) if variance > VARIANCE_FLOOR * square else 0.0


@njit(cache=True, nogil=True)
def _sums(values: Floats, centre: float) -> tuple[float, float]:
    """The sums of the distances from `centre` and of their squares.

    Four sums are added up side by side, each over every fourth stock in the order of the symbols: an addition need not
    wait for the one before it, and the order is the same on every machine.
    """
    first = second = third = fourth = 0.0
    square1 = square2 = square3 = square4 = 0.0
    whole = len(values) // 4 * 4
    for place in range(0, whole, 4):
        one, two = values[place] - centre, values[place + 1] - centre
        three, four = values[place + 2] - centre, values[place + 3] - centre
        first, second, third, fourth = first + one, second + two, third + three, fourth + four
        square1, square2 = square1 + one * one, square2 + two * two
        square3, square4 = square3 + three * three, square4 + four * four
    for place in range(whole, len(values)):
        rest = values[place] - centre
        first, square1 = first + rest, square1 + rest * rest
    return first + second + third + fourth, square1 + square2 + square3 + square4


@njit(cache=True, nogil=True)
def _location_and_width(values: Floats, keys: Keys, method: int) -> tuple[float, float]:
    """What a method takes from each value, and what it divides by; a width of 0 if the values are constant.

    `method` is the position of its name in `Method`.
    """
    mean, deviation = _centre(values)
    if method == 0 or deviation == 0.0:
        return mean, deviation
    if method == 1:
        low, high = extremes(values, keys)
        return low, high - low
    spread = NORMAL_IQR * (quantile(values, keys, 0.75) - quantile(values, keys, 0.25))
    return quantile(values, keys, 0.5), spread if spread > np.sqrt(VARIANCE_FLOOR) * deviation else deviation


@njit(cache=True, nogil=True, error_model="numpy")
def _scale_blocks(
    values: Floats,
    blocks: Blocks,
    method: int,
    by_median: bool,
    neutral: float,
    observed_space: Floats,
    key_space: Keys,
    scaled: Floats,
) -> None:
    for index in range(len(blocks) - 1):
        block = values[blocks[index] : blocks[index + 1]]
        into = scaled[blocks[index] : blocks[index + 1]]
        count = _gather(block, observed_space)
        observed, keys = observed_space[:count], key_space[:count]
        imputed = by_median and count < len(block)
        location, width = 0.0, 0.0
        if count > 0:
            write_keys(observed, keys)
            location, width = _location_and_width(observed, keys, method)
        if width == 0.0:
            into[:] = neutral
            continue
        fill = neutral
        if imputed:
            # Scaling keeps the order: the median's neighbours are those of the scaled values.
            below, above, share = neighbours(observed, keys, 0.5)
            below, above = (below - location) / width, (above - location) / width
            fill = below + share * (above - below)
        for row in range(len(block)):
            value = block[row]
            into[row] = (value - location) / width if abs(value) < np.inf else fill


@njit(cache=True, nogil=True, error_model="numpy")
def _rank_blocks(
    values: Floats,
    blocks: Blocks,
    by_median: bool,
    neutral: float,
    observed_space: Floats,
    key_space: Keys,
    spare_space: Keys,
    order_space: NDArray[np.int32],
    rank_space: Vector,
    scaled: Floats,
) -> None:
    for index in range(len(blocks) - 1):
        block = values[blocks[index] : blocks[index + 1]]
        into = scaled[blocks[index] : blocks[index + 1]]
        count = _gather(block, observed_space)
        if count < 2:
            into[:] = neutral
            continue
        ranks, order = rank_space[:count], order_space[:, :count]
        write_keys(observed_space[:count], key_space[:count])
        rank_keys(key_space[:count], spare_space[:count], order, ranks)
        for place in range(count):
            ranks[place] = (ranks[place] - 1.0) / (count - 1.0) - 0.5
        fill = neutral
        if by_median and count < len(block):
            middle = (count - 1) // 2
            below, above = ranks[order[0, middle]], ranks[order[0, count // 2]]
            fill = below + 0.5 * (above - below)
        place = 0
        for row in range(len(block)):
            finite = abs(block[row]) < np.inf
            into[row] = ranks[place] if finite else fill
            place = min(place + finite, count - 1)


@njit(cache=True, nogil=True)
def _winsorize_blocks(
    values: Floats,
    blocks: Blocks,
    low: float,
    high: float,
    observed_space: Floats,
    key_space: Keys,
    limited: Vector,
) -> None:
    for index in range(len(blocks) - 1):
        block = values[blocks[index] : blocks[index + 1]]
        into = limited[blocks[index] : blocks[index + 1]]
        count = _gather(block, observed_space)
        floor, ceiling = -np.inf, np.inf
        if count > 0:
            observed, keys = observed_space[:count], key_space[:count]
            write_keys(observed, keys)
            floor, ceiling = quantile(observed, keys, low), quantile(observed, keys, high)
        for row in range(len(block)):
            value = np.float64(block[row])
            into[row] = min(max(value, floor), ceiling) if abs(value) < np.inf else np.nan


def _check(
    frame: pl.DataFrame,
    features: Sequence[str],
    method: str,
    imputation: str,
    winsorize: tuple[float, float] | None,
) -> None:
    if method not in get_args(Method):
        raise InvalidInput(f"scaling method {method!r} is unknown; known: {', '.join(get_args(Method))}")
    if imputation not in get_args(Imputation):
        raise InvalidInput(f"imputation {imputation!r} is unknown; known: {', '.join(get_args(Imputation))}")
    check_quantiles(winsorize)
    missing = [name for name in ("symbol", "date", *features) if name not in frame.columns]
    if missing:
        raise InvalidInput(f"the frame to scale lacks the columns {missing}; it has: {', '.join(frame.columns)}")


def check_quantiles(winsorize: tuple[float, float] | None) -> None:
    """Raises `InvalidInput` unless the quantiles to winsorize at are None or 0 <= low < high <= 1."""
    if winsorize is not None and not 0.0 <= winsorize[0] < winsorize[1] <= 1.0:
        raise InvalidInput(f"winsorize {winsorize} is not allowed; give two quantiles with 0 <= low < high <= 1")
