"""What a model says of rows: a score for each, and the features that moved it most.

Both follow from a row alone, so that rows are scored to the same bytes in one piece or many, here or in a container.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.research.algorithms import Algorithm

CONTRIBUTIONS = 3
"""How many features are named as the reasons for a rank."""


@dataclass(frozen=True)
class Scored:
    """What was said of rows, in their order.

    scores: the model's own, (rows,). named: places among the features of those that moved each score most, largest
    first, (rows, at most `CONTRIBUTIONS`); values: by how much, of the same shape.
    """

    scores: NDArray[np.float64]
    named: NDArray[np.uint32]
    values: NDArray[np.float32]


def score_rows(algorithm: Algorithm, values: NDArray[np.float32], features: Sequence[str]) -> Scored:
    """Scores and reasons for `values`, of shape (rows, features)."""
    scores = algorithm.predict(values, features)
    contributions = algorithm.contributions(values, features)
    named = np.argsort(-np.abs(contributions), axis=1, kind="stable")[:, :CONTRIBUTIONS]
    by = np.take_along_axis(contributions, named, axis=1)
    return Scored(scores, named.astype(np.uint32), by.astype(np.float32))


def reason_columns(said: Scored) -> list[pl.Series]:
    """The reasons as columns, `feature_0`, `value_0`, `feature_1` and so on; see `answer_columns`."""
    columns = []
    for place in range(said.named.shape[1]):
        columns += [
            pl.Series(f"feature_{place}", said.named[:, place]),
            pl.Series(f"value_{place}", said.values[:, place]),
        ]
    return columns


def answer_columns(features: Sequence[str]) -> dict[str, pl.DataType]:
    """What a served model that is asked for reasons answers for each row, in this order."""
    kinds: dict[str, pl.DataType] = {"score": pl.Float64()}
    for place in range(min(CONTRIBUTIONS, len(features))):
        kinds |= {f"feature_{place}": pl.UInt32(), f"value_{place}": pl.Float32()}
    return kinds


def scored_of(answer: pl.DataFrame, features: Sequence[str]) -> Scored:
    """What an answer in `answer_columns` says, row by row."""
    places = range(min(CONTRIBUTIONS, len(features)))
    named = answer.select(f"feature_{place}" for place in places).to_numpy()
    values = answer.select(f"value_{place}" for place in places).to_numpy()
    return Scored(answer["score"].to_numpy(), named.astype(np.uint32), values.astype(np.float32))
