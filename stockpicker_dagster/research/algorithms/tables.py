"""The labelled rows that an algorithm learns from, as arrays sorted by date, and how well scores rank them.

Every date has the same weight, however many stocks it has, so that crowded days do not dominate. Where rows come from
is not decided here.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.cross_section import date_blocks
from stockpicker_dagster.research.order_statistics import average_ranks

Vector = NDArray[np.float64]
Values = NDArray[np.float32]
Blocks = NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """The labelled rows of one part, sorted by date, then symbol.

    `features` has the shape (rows, features); the rows of date i are `blocks[i]` to `blocks[i + 1]`.
    """

    features: Values
    label: Vector
    blocks: Blocks

    @classmethod
    def of(cls, frame: pl.DataFrame, features: Sequence[str], label: str, part: str) -> "Table":
        """The rows of `frame` that have a label; `part` names the table in errors.

        Raises `InvalidInput` for missing columns, no features, or features that are not finite.
        """
        rows, values = labelled_rows(frame, features, label, part)
        return cls(values, rows[label].cast(pl.Float64).to_numpy(), date_blocks(rows["date"]))

    @property
    def dates(self) -> int:
        """How many dates there are."""
        return len(self.blocks) - 1

    @property
    def weights(self) -> Vector:
        """One weight a row: the same sum for every date, one on average."""
        sizes = np.diff(self.blocks)
        return np.repeat(len(self.label) / (len(sizes) * sizes), sizes) if len(self.label) else np.zeros(0)

    def check_learnable(self, label: str) -> None:
        """Raises `InvalidInput` unless some date has two different labels: there is nothing to rank otherwise."""
        if not len(self.label):
            raise InvalidInput(f"the training table has no row with a {label!r}; train on a longer period")
        if not _varies(self.label, self.blocks):
            raise InvalidInput(
                f"every row of a date has the same {label!r} in the training table (such as {self.label[0]:g}): "
                "there is nothing to rank; check how the label is made, and that dates have two stocks or more"
            )

    def digest(self) -> str:
        """Of features, labels and dates."""
        content = hashlib.sha256(np.ascontiguousarray(self.features).tobytes())
        content.update(self.label.tobytes() + self.blocks.astype(np.int64).tobytes())
        return content.hexdigest()

    def rank_ic(self, scores: Vector) -> float:
        """The mean over dates of Spearman's correlation of score and label; NaN if no date has one."""
        daily = daily_rank_ic(scores, self.label, self.blocks)
        observed = daily[~np.isnan(daily)]
        return math.fsum(observed) / len(observed) if len(observed) else math.nan


def labelled_rows(frame: pl.DataFrame, features: Sequence[str], label: str, part: str) -> tuple[pl.DataFrame, Values]:
    """The rows of `frame` that have a label, sorted by date, then symbol, and their features as a matrix."""
    absent = [name for name in ("date", label, *features) if name not in frame.columns]
    if absent or not features:
        raise InvalidInput(f"the {part} table lacks the columns {absent or 'of any feature'}; it needs them to learn")
    order = ["date", "symbol"] if "symbol" in frame.columns else ["date"]
    rows = frame.filter(pl.col(label).cast(pl.Float64).is_finite().fill_null(False)).sort(order, maintain_order=True)
    values = rows.select(pl.col(name).cast(pl.Float32) for name in features).to_numpy()
    check_finite(values, features, f"{part} features")
    return rows, np.ascontiguousarray(values)


def measured(train: Table, train_scores: Vector, validation: Table, validation_scores: Vector) -> dict[str, float]:
    """The figures that every algorithm says of its training."""
    return {
        "train_rows": float(len(train.label)),
        "train_dates": float(train.dates),
        "train_rank_ic": train.rank_ic(train_scores),
        "validation_rows": float(len(validation.label)),
        "validation_rank_ic": validation.rank_ic(validation_scores),
    }


def check_finite(values: Values, features: Sequence[str], what: str) -> None:
    """Raises `InvalidInput`, naming the features, if any value is null, NaN or infinite."""
    if not np.isfinite(values).all():
        named = [name for position, name in enumerate(features) if not np.isfinite(values[:, position]).all()]
        raise InvalidInput(f"the {what} {named} hold null, NaN or infinite values; scale and impute them first")


def check_given(values: Values, features: Sequence[str], trained_on: Sequence[str]) -> None:
    """Raises `InvalidInput` unless `values` have the shape (rows, features), are finite and named as in training."""
    if tuple(features) != tuple(trained_on):
        missing = [name for name in trained_on if name not in features]
        unknown = [name for name in features if name not in trained_on]
        raise InvalidInput(
            f"the model was trained on {list(trained_on)} and is given {list(features)} "
            f"(missing {missing}, not trained on {unknown}); train it again or give those, in that order"
        )
    if values.ndim != 2 or values.shape[1] != len(trained_on):
        raise InvalidInput(f"the features have the shape {values.shape}; it must be (rows, {len(trained_on)})")
    check_finite(values, features, "features to score")


@njit(cache=True, nogil=True)
def daily_rank_ic(scores: Vector, label: Vector, blocks: Blocks) -> Vector:
    """Spearman's correlation on each date, ties sharing their mean rank; NaN where either side is constant."""
    result = np.full(len(blocks) - 1, np.nan)
    for index in range(len(blocks) - 1):
        first, last = blocks[index], blocks[index + 1]
        one, two = average_ranks(scores[first:last]), average_ranks(label[first:last])
        centre = 0.5 * (last - first + 1)
        cross, square1, square2 = 0.0, 0.0, 0.0
        for row in range(last - first):
            cross += (one[row] - centre) * (two[row] - centre)
            square1 += (one[row] - centre) * (one[row] - centre)
            square2 += (two[row] - centre) * (two[row] - centre)
        if square1 > 0.0 and square2 > 0.0:
            result[index] = cross / math.sqrt(square1 * square2)
    return result


@njit(cache=True, nogil=True)
def _varies(label: Vector, blocks: Blocks) -> bool:
    for index in range(len(blocks) - 1):
        for row in range(blocks[index] + 1, blocks[index + 1]):
            if label[row] != label[blocks[index]]:
                return True
    return False
