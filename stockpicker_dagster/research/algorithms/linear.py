"""Linear models in closed form or nearly so: the score is a weighted sum of the scaled features.

Ridge (Hoerl and Kennard, 1970), the elastic net (Zou and Hastie, 2005; coordinate descent on covariances as in
Friedman, Hastie and Tibshirani, 2010) and Huber's robust loss (1964; iteratively re-weighted). Every date has the same
weight, however many stocks it has. Sums are made row by row and solved here rather than by BLAS, whose last bits depend
on threads and sizes.
"""

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
from stockpicker_dagster.research.algorithms import (
    UNSUPERVISED,
    Hyperparameter,
    Progress,
    Supervision,
    TrainingStopped,
    Value,
    validate_hyperparameters,
)
from stockpicker_dagster.research.algorithms.checked_scores import CheckedScores
from stockpicker_dagster.research.algorithms.documents import numbers, read_document, write_document
from stockpicker_dagster.research.algorithms.tables import Blocks, Table, measured

ARTIFACT = "linear.json"
ALPHA_GRID = (0.01, 0.1, 1.0, 10.0, 100.0)
"""What `alpha: auto` chooses from for ridge and Huber. Scaled features have a variance of about one, so that an alpha
of one halves the weight of a lone feature."""
SHARE_GRID = (0.001, 0.01, 0.03, 0.1, 0.3, 0.9)
"""What it chooses from for the elastic net: shares of the penalty at which every coefficient becomes zero."""
_ROUNDS, _TOLERANCE = 2000, 1e-10
"""Passes of coordinate descent and of re-weighting at most, and the largest change, relative to the largest
coefficient, at which they end."""

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass
class LinearModel(CheckedScores):
    """The mean is over dates of the mean over stocks, r = label - intercept - features x b; the intercept is free.

    - `ridge`: minimizes mean(r^2) + alpha x |b|^2
    - `elastic_net`: mean(r^2) + 2 x alpha x l1_ratio x sum|b| + alpha x (1 - l1_ratio) x |b|^2, which is scikit-learn's
      `ElasticNet` of the same alpha and l1_ratio
    - `huber`: mean(rho(r)) + alpha x |b|^2 with rho(r) = r^2 up to a threshold c and 2c|r| - c^2 beyond it

    `coefficients` are in label units per unit of the scaled feature.
    """

    name: ClassVar[str] = "linear"
    warm_starts: ClassVar[bool] = False
    hyperparameters: ClassVar[tuple[Hyperparameter, ...]] = (
        Hyperparameter(
            "method",
            str,
            "ridge",
            "The penalty and the loss: squared coefficients; absolute ones beside them, which sets some to zero; or a "
            "loss that large errors move less.",
            "name",
            words=("ridge", "elastic_net", "huber"),
        ),
        Hyperparameter(
            "alpha",
            float,
            "auto",
            "Penalty on the coefficients; `auto` takes that of the best mean rank IC on the validation period: of "
            f"{', '.join(f'{alpha:g}' for alpha in ALPHA_GRID)}, for the elastic net of "
            f"{', '.join(f'{share:g}' for share in SHARE_GRID)} times the penalty that leaves no coefficient.",
            "variances of a scaled feature",
            minimum=0.0,
            words=("auto",),
        ),
        Hyperparameter(
            "l1_ratio",
            float,
            0.5,
            "Share of the penalty that is on absolute coefficients.",
            "fraction",
            minimum=0.01,
            maximum=1.0,
            only_with=("method", ("elastic_net",)),
        ),
        Hyperparameter(
            "threshold",
            float,
            1.0,
            "Errors beyond this count by their size, not by its square.",
            "standard deviations of the label",
            minimum=0.01,
            maximum=10.0,
            only_with=("method", ("huber",)),
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
        supervision: Supervision = UNSUPERVISED,
        start_from: Self | None = None,
        horizon_days: int = 1,
    ) -> Self:
        """Solve for `train`; `validation` chooses alpha if that is `auto`. Nothing is random, and nothing is kept.

        Of equally good alphas the largest is taken, and so it is if no date of `validation` has a rank IC. Raises
        `InvalidInput` for no features, features that are missing or not finite, no labelled row in `train`, none in
        `validation` with `alpha: auto`, an earlier model to start from, or, at an alpha of zero, features that depend
        linearly on each other.
        """
        settings = validate_hyperparameters(cls.name, hyperparameters)
        if start_from is not None:
            raise InvalidInput("algorithm 'linear' has one solution, wherever it starts; leave the warm start out")
        known = Table.of(train, features, label, "training")
        held_out = Table.of(validation, features, label, "validation")
        known.check_learnable(label)
        if settings["alpha"] == "auto" and not len(held_out.label):
            raise InvalidInput(
                f"alpha 'auto' is chosen on the validation period, which has no row with a {label!r}; give a number"
            )
        equations = _NormalEquations.of(known)
        alphas = sorted(_alphas(settings, equations), reverse=True)
        best: tuple[float, Self] | None = None
        for step, alpha in enumerate(alphas):
            if supervision.stop():
                raise TrainingStopped(f"training stopped before alpha {alpha:g}; it starts again from the beginning")
            intercept, coefficients = _solve(settings, alpha, equations, known)
            model = cls(tuple(features), label, intercept, coefficients, chosen={**settings, "alpha": alpha})
            rank_ic = held_out.rank_ic(model._score(held_out.features))
            residual = known.label - model._score(known.features)
            loss = math.fsum(known.weights * residual**2) / len(residual)
            supervision.progress(Progress(step + 1, len(alphas), loss, rank_ic))
            if best is None or rank_ic > best[0]:
                best = (rank_ic if math.isfinite(rank_ic) else -math.inf, model)
        assert best is not None
        winner = best[1]
        winner.metrics = measured(known, winner._score(known.features), held_out, winner._score(held_out.features))
        return winner

    def save(self, directory: Path) -> None:
        """Write `linear.json`."""
        content = {"intercept": self.intercept, "coefficients": self.coefficients.tolist()}
        path = directory / ARTIFACT
        write_document(path, self.name, self.label, self.features, self.chosen, self.metrics, content)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read `linear.json`; `InvalidInput` if it is missing, of another kind or not consistent."""
        path = directory / ARTIFACT
        document = read_document(path, cls.name, {"intercept": float, "coefficients": list})
        coefficients = numbers(document, "coefficients", path)
        if len(coefficients) != len(document["features"]) or not math.isfinite(document["intercept"]):
            raise InvalidInput(
                f"the model {path} has {len(coefficients)} coefficients for {len(document['features'])} features; "
                "it needs one finite number for each, so train it again"
            )
        return cls(
            features=tuple(document["features"]),
            label=document["label"],
            intercept=document["intercept"],
            coefficients=coefficients,
            chosen=document["hyperparameters"],
            metrics=document["metrics"],
        )

    def _contributions(self, values: NDArray[np.float32]) -> Matrix:
        """Coefficient times value; with the intercept they add up to the score."""
        return values.astype(np.float64) * self.coefficients

    def _score(self, values: NDArray[np.float32]) -> Vector:
        scores = np.full(len(values), self.intercept)
        for position, coefficient in enumerate(self.coefficients):
            scores += values[:, position].astype(np.float64) * coefficient
        return scores


@dataclass(frozen=True)
class _NormalEquations:
    """Means, covariances of the features and covariances with the label, under one weight a row."""

    feature_means: Vector
    label_mean: float
    covariance: Matrix
    with_label: Vector

    @classmethod
    def of(cls, table: Table, emphasis: Vector | None = None) -> "_NormalEquations":
        """Every date weighs the same; `emphasis` multiplies the weights of single rows."""
        rows = np.ones(len(table.label)) if emphasis is None else emphasis
        means, label_mean = _weighted_means(table.features, table.label, table.blocks, rows)
        moments = _weighted_moments(table.features, table.label, table.blocks, rows, means, label_mean)
        return cls(means, label_mean, *moments)

    def ridge(self, alpha: float) -> tuple[float, Vector]:
        """Intercept and coefficients for one penalty."""
        coefficients = _cholesky_solve(self.covariance + alpha * np.eye(len(self.with_label)), self.with_label)
        if not np.isfinite(coefficients).all():
            raise InvalidInput(
                f"the features depend linearly on each other and alpha is {alpha:g}; give an alpha above 0"
            )
        return self._intercept(coefficients), coefficients

    def elastic_net(self, alpha: float, l1_ratio: float) -> tuple[float, Vector]:
        """Intercept and coefficients for one penalty, by coordinate descent."""
        coefficients = _coordinate_descent(
            self.covariance, self.with_label, alpha * l1_ratio, alpha * (1.0 - l1_ratio), _ROUNDS, _TOLERANCE
        )
        return self._intercept(coefficients), coefficients

    def _intercept(self, coefficients: Vector) -> float:
        return self.label_mean - math.fsum((coefficients * self.feature_means).tolist())


def _alphas(settings: Mapping[str, Value], equations: _NormalEquations) -> list[float]:
    alpha = settings["alpha"]
    if alpha != "auto":
        assert isinstance(alpha, float)
        return [alpha]
    if settings["method"] != "elastic_net":
        return list(ALPHA_GRID)
    ratio = settings["l1_ratio"]
    assert isinstance(ratio, float)
    largest = float(np.abs(equations.with_label).max()) / ratio
    return [share * largest for share in SHARE_GRID] if largest > 0 else [0.0]


def _solve(
    settings: Mapping[str, Value], alpha: float, equations: _NormalEquations, table: Table
) -> tuple[float, Vector]:
    if settings["method"] == "ridge":
        return equations.ridge(alpha)
    if settings["method"] == "elastic_net":
        ratio = settings["l1_ratio"]
        assert isinstance(ratio, float)
        return equations.elastic_net(alpha, ratio)
    threshold = settings["threshold"]
    assert isinstance(threshold, float)
    deviation = _deviation(table)
    return _huber(table, alpha, threshold * deviation, equations.ridge(alpha))


def _deviation(table: Table) -> float:
    """The standard deviation of the label, every date weighing the same."""
    weights = table.weights / len(table.label)
    mean = math.fsum(weights * table.label)
    return math.sqrt(math.fsum(weights * (table.label - mean) ** 2))


def _huber(table: Table, alpha: float, threshold: float, start: tuple[float, Vector]) -> tuple[float, Vector]:
    """Re-weighted least squares: a row beyond the threshold counts by threshold / |residual|.

    A weighted ridge divides by the sum of weights, so that the penalty is rescaled to stay the one asked for.
    """
    intercept, coefficients = start
    for _ in range(_ROUNDS):
        residual = np.abs(_residuals(table.features, table.label, intercept, coefficients))
        emphasis = np.where(residual > threshold, threshold / np.maximum(residual, threshold), 1.0)
        total = math.fsum(table.weights * emphasis) / len(emphasis)
        before = coefficients
        intercept, coefficients = _NormalEquations.of(table, emphasis).ridge(alpha / total)
        largest = np.abs(coefficients).max()
        # Half of the digits suffice: a further one of the coefficients moves no rank.
        if not np.abs(coefficients - before).max() > math.sqrt(_TOLERANCE) * largest:
            break
    return intercept, coefficients


@njit(cache=True, nogil=True)
def _residuals(features: NDArray[np.float32], label: Vector, intercept: float, coefficients: Vector) -> Vector:
    result = label - intercept
    for row in range(len(label)):
        for column in range(len(coefficients)):
            result[row] -= features[row, column] * coefficients[column]
    return result


@njit(cache=True, nogil=True)
def _weighted_means(
    features: NDArray[np.float32], label: Vector, blocks: Blocks, emphasis: Vector
) -> tuple[Vector, float]:
    means, label_mean, total = np.zeros(features.shape[1]), 0.0, 0.0
    dates = len(blocks) - 1
    for index in range(dates):
        first, last = blocks[index], blocks[index + 1]
        for row in range(first, last):
            weight = emphasis[row] / (dates * (last - first))
            total += weight
            label_mean += weight * label[row]
            for column in range(features.shape[1]):
                means[column] += weight * features[row, column]
    return means / total, label_mean / total


@njit(cache=True, nogil=True)
def _weighted_moments(
    features: NDArray[np.float32], label: Vector, blocks: Blocks, emphasis: Vector, means: Vector, label_mean: float
) -> tuple[Matrix, Vector]:
    size = features.shape[1]
    covariance, with_label, centred = np.zeros((size, size)), np.zeros(size), np.empty(size)
    dates, total = len(blocks) - 1, 0.0
    for index in range(dates):
        first, last = blocks[index], blocks[index + 1]
        for row in range(first, last):
            weight = emphasis[row] / (dates * (last - first))
            total += weight
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
    return covariance / total, with_label / total


@njit(cache=True, nogil=True)
def _coordinate_descent(
    covariance: Matrix, with_label: Vector, on_absolute: float, on_squares: float, rounds: int, tolerance: float
) -> Vector:
    """Minimizes b'Cb - 2c'b + 2 x on_absolute x sum|b| + on_squares x |b|^2, one coefficient after the other."""
    size = len(with_label)
    coefficients, gradient = np.zeros(size), with_label.copy()
    for _ in range(rounds):
        moved, largest = 0.0, 0.0
        for column in range(size):
            own = covariance[column, column]
            if own + on_squares <= 0.0:
                continue
            aim = gradient[column] + own * coefficients[column]
            shrunk = max(abs(aim) - on_absolute, 0.0) / (own + on_squares)
            value = shrunk if aim > 0.0 else -shrunk
            change = value - coefficients[column]
            if change != 0.0:
                for other in range(size):
                    gradient[other] -= covariance[column, other] * change
                coefficients[column] = value
            moved = max(moved, abs(change))
            largest = max(largest, abs(value))
        if moved <= tolerance * largest:
            break
    return coefficients


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
