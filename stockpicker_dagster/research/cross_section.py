"""Puts the features of one day on a common scale across the stocks of that day.

Every date is treated by itself: its scale, its median and its quantiles come from the stocks given for that date and
from nothing else, so that no later day and no other universe reaches it. Which stocks those are is decided elsewhere.
The conventions follow Gu, Kelly and Xiu (2020), section 2.1, and scikit-learn's scalers of the same names.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput

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


def scale(
    frame: pl.DataFrame,
    features: Sequence[str],
    method: Method = "standard",
    imputation: Imputation = "median",
    winsorize: tuple[float, float] | None = None,
) -> pl.DataFrame:
    """Scale and impute `features`, one date at a time, over all rows of that date.

    With x over the observed values of one feature on one date (null, NaN and infinite ones are missing):

    - `standard`: (x - mean) / population standard deviation; 0 if constant
    - `minmax`: (x - min) / (max - min), in [0, 1]; 0.5 if constant
    - `rank`: (average rank - 1) / (n - 1) - 0.5, in [-0.5, 0.5]; 0 if constant
    - `robust`: (x - median) / (0.7413 x interquartile range), over the standard deviation where the quartiles
      coincide; 0 if constant

    `winsorize` moves values outside these two quantiles of the day (linear interpolation) onto them, before scaling.
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
    ordered = frame.select("symbol", "date", *features).sort("date", "symbol")
    repeated = (ordered["date"] == ordered["date"].shift(1)) & (ordered["symbol"] == ordered["symbol"].shift(1))
    if repeated.any():
        symbol, day = ordered.filter(repeated).select("symbol", "date").row(0)
        raise InvalidInput(f"the features hold more than one row for {symbol} on {day}; keep one row a day and symbol")
    blocks = date_blocks(ordered["date"])
    scaled = ordered.select("symbol", "date")
    for name in features:
        values = winsorize_blocks(finite_values(ordered[name]), blocks, winsorize)
        column = scale_blocks(values, blocks, method, imputation)
        scaled = scaled.with_columns(pl.Series(name, column.astype(np.float32)))
    return scaled


def scale_blocks(values: Vector, blocks: Blocks, method: Method, imputation: Imputation) -> Vector:
    """`scale` for one column: block i is `values[blocks[i]:blocks[i + 1]]`, NaN where missing; returns a new array."""
    return _scale_blocks(values, blocks, get_args(Method).index(method), imputation == "median", NEUTRAL[method])


def winsorize_blocks(values: Vector, blocks: Blocks, quantiles: tuple[float, float] | None) -> Vector:
    """Move the values of each block that lie outside its two quantiles onto them; None leaves all as they are."""
    return values if quantiles is None else _winsorize_blocks(values, blocks, *quantiles)


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


@njit(cache=True, nogil=True)
def average_ranks(values: Vector) -> Vector:
    """Ranks from 1, equal values sharing the mean of theirs; no value may be NaN."""
    order = np.argsort(values)
    ranks = np.empty(len(values))
    first = 0
    for position in range(1, len(values) + 1):
        if position == len(values) or values[order[position]] != values[order[first]]:
            for tied in range(first, position):
                ranks[order[tied]] = 0.5 * (first + 1 + position)
            first = position
    return ranks


@njit(cache=True, nogil=True)
def _quantile(ordered: Vector, probability: float) -> float:
    """Linear interpolation between order statistics, NumPy's default."""
    position = probability * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


@njit(cache=True, nogil=True)
def _centre(values: Vector) -> tuple[float, float]:
    """Mean and population standard deviation, added up in the order of the symbols; a deviation of 0 if constant."""
    total, square = 0.0, 0.0
    for value in values:
        total += value
        square += value * value
    mean = total / len(values)
    variance = 0.0
    for value in values:
        variance += (value - mean) * (value - mean)
    return mean, np.sqrt(variance / len(values)) if variance > VARIANCE_FLOOR * square else 0.0


@njit(cache=True, nogil=True)
def _standard(values: Vector) -> None:
    mean, deviation = _centre(values)
    for row in range(len(values)):
        values[row] = (values[row] - mean) / deviation if deviation > 0.0 else 0.0


@njit(cache=True, nogil=True)
def _minmax(values: Vector) -> None:
    low, high = values.min(), values.max()
    constant = _centre(values)[1] == 0.0
    for row in range(len(values)):
        values[row] = 0.5 if constant else (values[row] - low) / (high - low)


@njit(cache=True, nogil=True)
def _rank(values: Vector) -> None:
    ranks = average_ranks(values)
    for row in range(len(values)):
        values[row] = (ranks[row] - 1.0) / (len(values) - 1.0) - 0.5 if len(values) > 1 else 0.0


@njit(cache=True, nogil=True)
def _robust(values: Vector) -> None:
    ordered = np.sort(values)
    median = _quantile(ordered, 0.5)
    deviation = _centre(ordered)[1]
    spread = NORMAL_IQR * (_quantile(ordered, 0.75) - _quantile(ordered, 0.25))
    width = spread if spread > np.sqrt(VARIANCE_FLOOR) * deviation else deviation
    for row in range(len(values)):
        values[row] = (values[row] - median) / width if deviation > 0.0 else 0.0


@njit(cache=True, nogil=True)
def _gather(block: Vector, buffer: Vector) -> Vector:
    """The observed values of a block, side by side in the buffer."""
    count = 0
    for value in block:
        if not np.isnan(value):
            buffer[count] = value
            count += 1
    return buffer[:count]


@njit(cache=True, nogil=True)
def _scale_blocks(values: Vector, blocks: Blocks, method: int, by_median: bool, neutral: float) -> Vector:
    """`method` is the position of its name in `Method`."""
    result, buffer = values.copy(), np.empty(len(values))
    for index in range(len(blocks) - 1):
        block = result[blocks[index] : blocks[index + 1]]
        observed = _gather(block, buffer)
        if len(observed) > 0:
            if method == 0:
                _standard(observed)
            elif method == 1:
                _minmax(observed)
            elif method == 2:
                _rank(observed)
            else:
                _robust(observed)
        fill, position = neutral, 0
        if by_median and 0 < len(observed) < len(block):
            fill = _quantile(np.sort(observed), 0.5)
        for row in range(len(block)):
            if np.isnan(block[row]):
                block[row] = fill
            else:
                block[row] = observed[position]
                position += 1
    return result


@njit(cache=True, nogil=True)
def _winsorize_blocks(values: Vector, blocks: Blocks, low: float, high: float) -> Vector:
    result, buffer = values.copy(), np.empty(len(values))
    for index in range(len(blocks) - 1):
        block = result[blocks[index] : blocks[index + 1]]
        ordered = np.sort(_gather(block, buffer))
        if len(ordered) > 0:
            floor, ceiling = _quantile(ordered, low), _quantile(ordered, high)
            for row in range(len(block)):
                if not np.isnan(block[row]):
                    block[row] = min(max(block[row], floor), ceiling)
    return result


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
