"""Takes out of a feature what its stocks' sector, size and market beta say about it, one date at a time.

What is left is the residual of an ordinary least-squares regression over the stocks of the day: on a constant for each
sector (one for all where sectors are not asked for), and on size and beta. What size and beta are is in `exposures`;
scaling, which follows, is in `cross_section`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput

Blocks = NDArray[np.int64]
Matrix = NDArray[np.float64]

VARIANCE_FLOOR = 1e-12
"""A variance below this part of what it is taken of is rounding noise: nothing is left to explain, or to explain by."""


@dataclass(frozen=True)
class Exposed:
    """Exposures in the order of some rows: the number of each row's sector, and the other exposures as rows."""

    sectors: NDArray[np.int64]
    others: Matrix


@dataclass(frozen=True)
class Exposures:
    """What stocks are exposed to on each day: `symbol`, `date`, and the columns of `table` that are named.

    `sector` names a column of texts, None if sectors stay; null is a sector of its own, that of stocks of which it is
    not known. `others` name columns of numbers; a stock of which one is null, NaN or infinite gets the median of the
    day's stocks, so that it keeps its features.
    """

    table: pl.DataFrame
    sector: str | None
    others: tuple[str, ...]

    def of(self, rows: pl.DataFrame) -> Exposed:
        """The exposures of `rows` (`symbol`, `date`, sorted by date). Raises `InvalidInput` if a row has none."""
        keys = ["symbol", "date"]
        wanted = [*([self.sector] if self.sector else []), *self.others]
        found = rows.select(keys).join(
            self.table.select(*keys, *wanted, known=True), on=keys, how="left", maintain_order="left"
        )
        if found["known"].null_count() or found.height != rows.height:
            raise InvalidInput(f"the exposures do not have one row for each of the {rows.height} rows to neutralize")
        codes = _codes(found[self.sector]) if self.sector else np.zeros(rows.height, dtype=np.int64)
        numbers = [pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in self.others]
        filled = found.select(pl.col("date"), *numbers).select(
            pl.col(name).fill_null(pl.col(name).median().over("date")).fill_null(0.0) for name in self.others
        )
        others = np.empty((len(self.others), rows.height))
        for row, name in enumerate(self.others):
            others[row] = filled[name].cast(pl.Float64).to_numpy()
        return Exposed(codes, others)


def neutralize_blocks(values: NDArray[np.floating[Any]], blocks: Blocks, exposed: Exposed) -> NDArray[np.float64]:
    """The residuals of each block's regression on its exposures, NaN where the value is missing or infinite.

    Block i is `values[blocks[i]:blocks[i + 1]]`. Sums are added up row by row, so that a block's result depends on
    nothing but its own rows. An exposure that the ones before it explain takes nothing out. A residual below a
    millionth of the feature's standard deviation is exactly zero: rounding noise must not be scaled into a signal.
    """
    residuals = np.empty(len(values))
    sectors = int(exposed.sectors.max(initial=0)) + 1
    _neutralize_blocks(values, blocks, exposed.sectors, sectors, exposed.others, residuals)
    return residuals


def _codes(sectors: pl.Series) -> NDArray[np.int64]:
    """A number for each name, null among them."""
    names: Sequence[str | None] = sectors.unique().sort().to_list()
    return sectors.replace_strict(names, list(range(len(names))), return_dtype=pl.Int64).to_numpy()


@njit(cache=True, nogil=True)
def _neutralize_blocks(
    values: NDArray[Any], blocks: Blocks, sectors: NDArray[np.int64], groups: int, others: Matrix, residuals: Matrix
) -> None:
    longest = 0
    for index in range(len(blocks) - 1):
        longest = max(longest, blocks[index + 1] - blocks[index])
    feature, group = np.empty(longest), np.empty(longest, dtype=np.int64)
    explaining = np.empty((len(others), longest))
    sums, counts = np.empty(groups), np.empty(groups)
    for index in range(len(blocks) - 1):
        first, last = blocks[index], blocks[index + 1]
        count = 0
        for row in range(first, last):
            if abs(values[row]) < np.inf:
                feature[count], group[count] = values[row], sectors[row]
                for each in range(len(others)):
                    explaining[each, count] = others[each, row]
                count += 1
        _take_out(feature[:count], group[:count], explaining[:, :count], sums, counts)
        place = 0
        for row in range(first, last):
            residuals[row] = np.nan
            if abs(values[row]) < np.inf:
                residuals[row] = feature[place]
                place += 1


@njit(cache=True, nogil=True)
def _take_out(feature: Matrix, group: NDArray[np.int64], explaining: Matrix, sums: Matrix, counts: Matrix) -> None:
    """Turns `feature` into its residuals, by Frisch, Waugh and Lovell: first the sectors' means, then one by one."""
    moved = _variation(feature)
    _less_group_means(feature, group, sums, counts)
    for each in range(len(explaining)):
        regressor = explaining[each]
        given = _variation(regressor)
        _less_group_means(regressor, group, sums, counts)
        for before in range(each):
            _less_projection(regressor, explaining[before])
        if _square(regressor) <= VARIANCE_FLOOR * given:
            regressor[:] = 0.0
        _less_projection(feature, regressor)
    if len(feature) > 0:
        noise = VARIANCE_FLOOR * moved / len(feature)
        for row in range(len(feature)):
            if feature[row] * feature[row] <= noise:
                feature[row] = 0.0


@njit(cache=True, nogil=True)
def _less_group_means(values: Matrix, group: NDArray[np.int64], sums: Matrix, counts: Matrix) -> None:
    sums[:] = 0.0
    counts[:] = 0.0
    for row in range(len(values)):
        sums[group[row]] += values[row]
        counts[group[row]] += 1.0
    for row in range(len(values)):
        values[row] -= sums[group[row]] / counts[group[row]]


@njit(cache=True, nogil=True)
def _less_projection(values: Matrix, direction: Matrix) -> None:
    """Takes the part of `values` along `direction` out of it; nothing where the direction is zero."""
    square = _square(direction)
    if square == 0.0:
        return
    product = 0.0
    for row in range(len(values)):
        product += values[row] * direction[row]
    for row in range(len(values)):
        values[row] -= product / square * direction[row]


@njit(cache=True, nogil=True)
def _square(values: Matrix) -> float:
    total = 0.0
    for value in values:
        total += value * value
    return total


@njit(cache=True, nogil=True)
def _variation(values: Matrix) -> float:
    """The sum of squared distances from the mean, and no less than what rounding makes of it."""
    total, square = 0.0, 0.0
    for value in values:
        total += value
        square += value * value
    mean = total / max(1, len(values))
    distance = 0.0
    for value in values:
        distance += (value - mean) * (value - mean)
    return max(distance, VARIANCE_FLOOR * square)
