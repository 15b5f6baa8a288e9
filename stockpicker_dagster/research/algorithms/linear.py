"""Ridge regression in closed form: the score is a weighted sum of the scaled features.

Every date has the same weight, however many stocks it has. The normal equations are added up row by row and solved
here rather than by BLAS, whose last bits depend on threads and sizes. Hoerl and Kennard (1970), "Ridge regression:
biased estimation for nonorthogonal problems".
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms import Hyperparameter, Value, validate_hyperparameters
from stockpicker_dagster.research.cross_section import date_blocks
from stockpicker_dagster.research.order_statistics import average_ranks

ARTIFACT = "linear.json"
FORMAT = 1
ALPHA_GRID = (0.01, 0.1, 1.0, 10.0, 100.0)
"""What `alpha: auto` chooses from. Scaled features have a variance of about one, so that an alpha of one halves the
weight of a lone feature."""

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Blocks = NDArray[np.int64]


@dataclass
class Ridge:
    """Minimizes the mean over dates of the mean over stocks of (label - intercept - features x b)^2, + alpha x |b|^2.

    The intercept is not penalized. `coefficients` are in label units per unit of the scaled feature.
    """

    name: ClassVar[str] = "linear"
    hyperparameters: ClassVar[tuple[Hyperparameter, ...]] = (
        Hyperparameter(
            "alpha",
            float,
            "auto",
            "Penalty on the squared coefficients; `auto` takes the value of "
            f"{', '.join(f'{alpha:g}' for alpha in ALPHA_GRID)} with the best mean rank IC on the validation period.",
            "variances of a scaled feature",
            minimum=0.0,
            words=("auto",),
        ),
    )

    features: tuple[str, ...]
    label: str
    intercept: float
    coefficients: Vector
    chosen: dict[str, Value] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        train: pl.DataFrame,
        validation: pl.DataFrame,
        features: Sequence[str],
        label: str,
        hyperparameters: Mapping[str, object] | None = None,
        seed: int = 0,
    ) -> Self:
        """Solve the normal equations of `train`; `validation` chooses alpha if that is `auto`. Nothing is random.

        Of equally good alphas the largest is taken, and so it is if no date of `validation` has a rank IC. Raises
        `InvalidInput` for no features, features that are missing or not finite, no labelled row in `train`, none in
        `validation` with `alpha: auto`, or, at an alpha of zero, features that depend linearly on each other.
        """
        settings = validate_hyperparameters(cls.name, hyperparameters)
        known = _Table.of(train, features, label, "training")
        held_out = _Table.of(validation, features, label, "validation")
        if not len(known.label):
            raise InvalidInput(f"the training table has no row with a {label!r}; train on a longer period")
        if settings["alpha"] == "auto" and not len(held_out.label):
            raise InvalidInput(
                f"alpha 'auto' is chosen on the validation period, which has no row with a {label!r}; give a number"
            )
        equations = _NormalEquations.of(known)
        alphas = ALPHA_GRID if settings["alpha"] == "auto" else (float(settings["alpha"]),)
        best: tuple[float, Self] | None = None
        for alpha in sorted(alphas, reverse=True):
            model = cls(tuple(features), label, *equations.solve(alpha), chosen={"alpha": alpha})
            rank_ic = model._mean_rank_ic(held_out)
            if best is None or rank_ic > best[0]:
                best = (rank_ic if math.isfinite(rank_ic) else -math.inf, model)
        assert best is not None
        winner = best[1]
        winner.metrics = {
            "train_rows": float(len(known.label)),
            "train_dates": float(len(known.blocks) - 1),
            "train_rank_ic": winner._mean_rank_ic(known),
            "validation_rows": float(len(held_out.label)),
            "validation_rank_ic": winner._mean_rank_ic(held_out),
        }
        return winner

    def predict(self, values: NDArray[np.float32], features: Sequence[str]) -> Vector:
        """Scores; adding one feature after the other, they have the same bytes however many rows are scored."""
        self._check(values, features)
        return self._score(values)

    def contributions(self, values: NDArray[np.float32], features: Sequence[str]) -> Matrix:
        """Coefficient times value, of shape (rows, features); with the intercept they add up to the score."""
        self._check(values, features)
        return values.astype(np.float64) * self.coefficients

    def save(self, directory: Path) -> None:
        """Write `linear.json`: plain text, floats in their shortest exact form."""
        document = {
            "format": FORMAT,
            "algorithm": self.name,
            "label": self.label,
            "hyperparameters": self.chosen,
            "metrics": {name: value if math.isfinite(value) else None for name, value in self.metrics.items()},
            "intercept": self.intercept,
            "features": list(self.features),
            "coefficients": self.coefficients.tolist(),
        }
        directory.mkdir(parents=True, exist_ok=True)
        (directory / ARTIFACT).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read `linear.json`; `InvalidInput` if it is missing, of another kind or not consistent."""
        path = directory / ARTIFACT
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInput(f"the model {path} cannot be read ({error}); train it again") from error
        _check_document(document, path)
        return cls(
            features=tuple(document["features"]),
            label=document["label"],
            intercept=float(document["intercept"]),
            coefficients=np.array(document["coefficients"], dtype=np.float64),
            chosen=document["hyperparameters"],
            metrics={name: math.nan if value is None else value for name, value in document["metrics"].items()},
        )

    def _check(self, values: NDArray[np.float32], features: Sequence[str]) -> None:
        if tuple(features) != self.features:
            missing = [name for name in self.features if name not in features]
            unknown = [name for name in features if name not in self.features]
            raise InvalidInput(
                f"the model was trained on {list(self.features)} and is given {list(features)} "
                f"(missing {missing}, not trained on {unknown}); train it again or give those, in that order"
            )
        if values.ndim != 2 or values.shape[1] != len(self.features):
            raise InvalidInput(f"the features have the shape {values.shape}; it must be (rows, {len(self.features)})")
        _check_finite(values, features, "features to score")

    def _score(self, values: NDArray[np.float32]) -> Vector:
        scores = np.full(len(values), self.intercept)
        for position, coefficient in enumerate(self.coefficients):
            scores += values[:, position].astype(np.float64) * coefficient
        return scores

    def _mean_rank_ic(self, table: "_Table") -> float:
        """The mean over dates of Spearman's correlation of score and label; NaN if no date has one."""
        daily = _daily_rank_ic(self._score(table.features), table.label, table.blocks)
        observed = daily[~np.isnan(daily)]
        return math.fsum(observed) / len(observed) if len(observed) else math.nan


@dataclass(frozen=True)
class _Table:
    """The labelled rows of one part, sorted by date: features (rows, features), labels and the block of each date."""

    features: NDArray[np.float32]
    label: Vector
    blocks: Blocks

    @classmethod
    def of(cls, frame: pl.DataFrame, features: Sequence[str], label: str, part: str) -> "_Table":
        absent = [name for name in ("date", label, *features) if name not in frame.columns]
        if absent or not features:
            raise InvalidInput(
                f"the {part} table lacks the columns {absent or 'of any feature'}; it needs them to learn"
            )
        order = ["date", "symbol"] if "symbol" in frame.columns else ["date"]
        labels = pl.col(label).cast(pl.Float64)
        rows = frame.filter(labels.is_finite().fill_null(False)).sort(order, maintain_order=True)
        values = rows.select(pl.col(name).cast(pl.Float32) for name in features).to_numpy()
        _check_finite(values, features, f"{part} features")
        return cls(np.ascontiguousarray(values), rows[label].cast(pl.Float64).to_numpy(), date_blocks(rows["date"]))


@dataclass(frozen=True)
class _NormalEquations:
    """Means, covariances of the features and covariances with the label, every date weighing the same."""

    feature_means: Vector
    label_mean: float
    covariance: Matrix
    with_label: Vector

    @classmethod
    def of(cls, table: _Table) -> "_NormalEquations":
        means, label_mean = _weighted_means(table.features, table.label, table.blocks)
        covariance, with_label = _weighted_moments(table.features, table.label, table.blocks, means, label_mean)
        return cls(means, label_mean, covariance, with_label)

    def solve(self, alpha: float) -> tuple[float, Vector]:
        """Intercept and coefficients for one penalty."""
        coefficients = _cholesky_solve(self.covariance + alpha * np.eye(len(self.with_label)), self.with_label)
        if not np.isfinite(coefficients).all():
            raise InvalidInput(
                f"the features depend linearly on each other and alpha is {alpha:g}; give an alpha above 0"
            )
        fitted_mean = math.fsum((coefficients * self.feature_means).tolist())
        return self.label_mean - fitted_mean, coefficients


def _check_finite(values: NDArray[np.float32], features: Sequence[str], what: str) -> None:
    if not np.isfinite(values).all():
        named = [name for position, name in enumerate(features) if not np.isfinite(values[:, position]).all()]
        raise InvalidInput(f"the {what} {named} hold null, NaN or infinite values; scale and impute them first")


def _check_document(document: object, path: Path) -> None:
    kinds = {"label": str, "intercept": float, "features": list, "coefficients": list}
    kinds |= {"hyperparameters": dict, "metrics": dict}
    if not isinstance(document, dict) or document.get("algorithm") != Ridge.name or document.get("format") != FORMAT:
        raise InvalidInput(f"{path} is no model of algorithm {Ridge.name!r} in format {FORMAT}; train it again")
    wrong = [name for name, kind in kinds.items() if not isinstance(document.get(name), kind)]
    if wrong:
        raise InvalidInput(f"the model {path} lacks {wrong}; train it again")
    features, coefficients = document["features"], document["coefficients"]
    numbers = all(isinstance(each, float) and math.isfinite(each) for each in [*coefficients, document["intercept"]])
    named = all(isinstance(each, str) for each in features) and len(set(features)) == len(features)
    if len(features) != len(coefficients) or not numbers or not named:
        raise InvalidInput(
            f"the model {path} has {len(coefficients)} coefficients for {len(features)} features; "
            "it needs one finite number for each, so train it again"
        )


@njit(cache=True, nogil=True)
def _weighted_means(features: NDArray[np.float32], label: Vector, blocks: Blocks) -> tuple[Vector, float]:
    means, label_mean = np.zeros(features.shape[1]), 0.0
    dates = len(blocks) - 1
    for index in range(dates):
        first, last = blocks[index], blocks[index + 1]
        weight = 1.0 / (dates * (last - first))
        for row in range(first, last):
            label_mean += weight * label[row]
            for column in range(features.shape[1]):
                means[column] += weight * features[row, column]
    return means, label_mean


@njit(cache=True, nogil=True)
def _weighted_moments(
    features: NDArray[np.float32], label: Vector, blocks: Blocks, means: Vector, label_mean: float
) -> tuple[Matrix, Vector]:
    size = features.shape[1]
    covariance, with_label, centred = np.zeros((size, size)), np.zeros(size), np.empty(size)
    dates = len(blocks) - 1
    for index in range(dates):
        first, last = blocks[index], blocks[index + 1]
        weight = 1.0 / (dates * (last - first))
        for row in range(first, last):
            for column in range(size):
                centred[column] = features[row, column] - means[column]
            for column in range(size):
                weighted = weight * centred[column]
                with_label[column] += weighted * (label[row] - label_mean)
                for other in range(column + 1):
                    covariance[column, other] += weighted * centred[other]
    for column in range(size):
        for other in range(column):
            covariance[other, column] = covariance[column, other]
    return covariance, with_label


@njit(cache=True, nogil=True)
def _cholesky_solve(matrix: Matrix, right: Vector) -> Vector:
    """Solves a symmetric positive definite system; NaN if the matrix is not, to within rounding."""
    size = len(right)
    lower = np.zeros((size, size))
    solution = right.copy()
    for column in range(size):
        pivot = matrix[column, column]
        for other in range(column):
            pivot -= lower[column, other] * lower[column, other]
        if not pivot > 1e-12 * matrix[column, column]:
            return np.full(size, np.nan)
        lower[column, column] = math.sqrt(pivot)
        for row in range(column + 1, size):
            value = matrix[row, column]
            for other in range(column):
                value -= lower[row, other] * lower[column, other]
            lower[row, column] = value / lower[column, column]
    for row in range(size):
        for other in range(row):
            solution[row] -= lower[row, other] * solution[other]
        solution[row] /= lower[row, row]
    for row in range(size - 1, -1, -1):
        for other in range(row + 1, size):
            solution[row] -= lower[other, row] * solution[other]
        solution[row] /= lower[row, row]
    return solution


@njit(cache=True, nogil=True)
def _daily_rank_ic(scores: Vector, label: Vector, blocks: Blocks) -> Vector:
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
