"""Gradient-boosted regression trees: scikit-learn's histogram boosting learns them, plain arrays keep them.

Trees are added while the rank IC on the validation period rises. A model is evaluated here, equal to scikit-learn bit
for bit, so that scoring needs neither scikit-learn nor anything that executes a file. Friedman (2001), "Greedy function
approximation"; Ke et al. (2017), "LightGBM", for the histograms.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

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
from stockpicker_dagster.research.algorithms.tables import Table, measured

ARTIFACT = "boosted_trees.json"
CHECKED_EVERY = 5
"""Trees between two looks at the validation period."""

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Trees:
    """Trees in one row of nodes after the other: node i of all is a leaf where `feature[i]` is -1.

    The root of tree t is node `roots[t]`; a value up to `threshold` goes to the node `left`, a larger one to `right`.
    `value` of a leaf is what it adds to the score; that of another node the mean over the training rows below it.
    """

    roots: Integers
    feature: Integers
    threshold: Vector
    left: Integers
    right: Integers
    value: Vector

    @classmethod
    def of(cls, learned: Sequence[NDArray[Any]]) -> "Trees":
        """From scikit-learn's arrays of nodes, one a tree."""
        roots = np.concatenate([[0], np.cumsum([len(nodes) for nodes in learned])])[: len(learned)].astype(np.int64)
        parts: list[list[NDArray[Any]]] = [[np.zeros(0)] for _ in range(5)]
        for root, nodes in zip(roots, learned, strict=True):
            leaf = nodes["is_leaf"].astype(bool)
            parts[0].append(np.where(leaf, -1, nodes["feature_idx"].astype(np.int64)))
            parts[1].append(np.where(leaf, 0.0, nodes["num_threshold"]))
            parts[2].append(np.where(leaf, 0, nodes["left"].astype(np.int64) + root))
            parts[3].append(np.where(leaf, 0, nodes["right"].astype(np.int64) + root))
            parts[4].append(_mean_values(nodes, leaf))
        feature, threshold, left, right, value = (np.concatenate(each) for each in parts)
        return cls(roots, feature.astype(np.int64), threshold, left.astype(np.int64), right.astype(np.int64), value)

    def check(self, features: int, path: Path) -> None:
        """Raises `InvalidInput` unless every row of features ends in a leaf: children come after their parent."""
        nodes = len(self.feature)
        sizes = {len(each) for each in (self.threshold, self.left, self.right, self.value)}
        place = np.arange(nodes)
        ends = np.append(self.roots[1:], nodes)
        inner = self.feature >= 0
        sound = (
            sizes == {nodes}
            and (not len(self.roots) or (self.roots[0] == 0 and bool(np.all(np.diff(ends) > 0)) and ends[0] > 0))
            and bool(np.all(self.roots < nodes))
            and (len(self.roots) > 0 or nodes == 0)
            and bool(np.all((self.feature >= -1) & (self.feature < features)))
        )
        if sound and nodes:
            last = ends[np.searchsorted(self.roots, place, side="right") - 1]
            for child in (self.left, self.right):
                sound = sound and bool(np.all(~inner | ((child > place) & (child < last))))
        if not sound:
            raise InvalidInput(f"the trees of the model {path} do not fit together; train it again")

    def first(self, count: int) -> "Trees":
        """The first `count` trees."""
        if count >= len(self.roots):
            return self
        end = int(self.roots[count])
        return Trees(
            self.roots[:count],
            self.feature[:end],
            self.threshold[:end],
            self.left[:end],
            self.right[:end],
            self.value[:end],
        )

    def add_to(self, scores: Vector, values: NDArray[np.float32]) -> None:
        """Add each tree's value for each row, tree by tree."""
        _add(scores, values, self.roots, self.feature, self.threshold, self.left, self.right, self.value)

    def contributions(self, values: NDArray[np.float32]) -> Matrix:
        """Along each row's path, what every split moved the mean of the rows below by, to its feature's account."""
        return _contributions(values, self.roots, self.feature, self.threshold, self.left, self.right, self.value)


@dataclass
class BoostedTrees(CheckedScores):
    """The score is `baseline` plus the trees' values; squared error is minimized, every date weighing the same."""

    name: ClassVar[str] = "boosted_trees"
    warm_starts: ClassVar[bool] = False
    hyperparameters: ClassVar[tuple[Hyperparameter, ...]] = (
        Hyperparameter("trees", int, 400, "How many trees are added at most.", "trees", minimum=1, maximum=10_000),
        Hyperparameter(
            "patience",
            int,
            60,
            "No more trees are added once the best mean rank IC on the validation period is so many trees ago, and the "
            "model ends with that tree; `none` adds all of them without a look at the validation period.",
            "trees",
            minimum=CHECKED_EVERY,
            maximum=10_000,
            words=("none",),
        ),
        Hyperparameter(
            "learning_rate",
            float,
            0.05,
            "How much of its fit each tree adds.",
            "fraction",
            minimum=0.0001,
            maximum=1.0,
        ),
        Hyperparameter("leaves", int, 15, "Leaves of a tree at most.", "leaves", minimum=2, maximum=1024),
        Hyperparameter("depth", int, 6, "Splits between root and leaf at most.", "splits", minimum=1, maximum=64),
        Hyperparameter(
            "rows_in_leaf", int, 200, "Fewest training rows in a leaf.", "rows", minimum=1, maximum=10_000_000
        ),
        Hyperparameter("l2", float, 1.0, "Penalty on the squared values of leaves.", "rows", minimum=0.0, maximum=1e9),
        Hyperparameter(
            "features_per_split",
            float,
            0.5,
            "Share of the features that a split chooses from, drawn anew for each.",
            "fraction",
            minimum=0.01,
            maximum=1.0,
        ),
        Hyperparameter("bins", int, 63, "Into how many a feature's values are sorted.", "bins", minimum=2, maximum=255),
        Hyperparameter(
            "threads",
            int,
            1,
            "Processor threads; the last bits of a model depend on how many, and with more than two may on chance.",
            "threads",
            minimum=1,
            maximum=256,
        ),
    )

    features: tuple[str, ...]
    label: str
    baseline: float
    trees: Trees
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
        """Add trees until the validation period says stop. `seed` draws the features that a split chooses from.

        Nothing is kept at a stop: training starts again, to the same bytes. Raises `InvalidInput` as the protocol says,
        for a validation without a rank IC while `patience` is a number, and for an earlier model to start from.
        """
        settings: dict[str, Any] = validate_hyperparameters(cls.name, hyperparameters)
        if start_from is not None:
            raise InvalidInput(
                "algorithm 'boosted_trees' does not start from an earlier model, whose trees would keep what they "
                "learned from days that have left the window; leave the warm start out"
            )
        known = Table.of(train, features, label, "training")
        held_out = Table.of(validation, features, label, "validation")
        known.check_learnable(label)
        if settings["patience"] != "none" and not np.isfinite(held_out.rank_ic(held_out.label)):
            raise InvalidInput(
                f"trees are added while the rank IC on the validation period rises, which has no date with different "
                f"{label!r}; validate on a longer period, or give patience 'none'"
            )
        course = _Course(known, held_out, settings, supervision)
        baseline, trees = _learn(known, settings, seed, course)
        model = cls(tuple(features), label, baseline, trees.first(course.best_count), {**settings})
        model.metrics = measured(known, model._score(known.features), held_out, model._score(held_out.features))
        model.metrics["trees"] = float(len(model.trees.roots))
        return model

    def save(self, directory: Path) -> None:
        """Write `boosted_trees.json`."""
        trees = self.trees
        content = {
            "baseline": self.baseline,
            "roots": trees.roots.tolist(),
            "feature": trees.feature.tolist(),
            "threshold": trees.threshold.tolist(),
            "left": trees.left.tolist(),
            "right": trees.right.tolist(),
            "value": trees.value.tolist(),
        }
        path = directory / ARTIFACT
        write_document(path, self.name, self.label, self.features, self.chosen, self.metrics, content)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read `boosted_trees.json`; `InvalidInput` if it is missing, of another kind or not consistent."""
        path = directory / ARTIFACT
        whole, broken = ("roots", "feature", "left", "right"), ("threshold", "value")
        document = read_document(path, cls.name, {"baseline": float, **dict.fromkeys(whole + broken, list)})
        trees = Trees(
            **{name: numbers(document, name, path, whole=True) for name in whole},
            **{name: numbers(document, name, path) for name in broken},
        )
        trees.check(len(document["features"]), path)
        if not math.isfinite(document["baseline"]):
            raise InvalidInput(f"the model {path} has the baseline {document['baseline']}; train it again")
        return cls(
            features=tuple(document["features"]),
            label=document["label"],
            baseline=document["baseline"],
            trees=trees,
            chosen=document["hyperparameters"],
            metrics=document["metrics"],
        )

    def _contributions(self, values: NDArray[np.float32]) -> Matrix:
        """What each feature's splits move the score by on the row's paths, from the score of the mean training row.

        With that mean they add up to the score. Saabas (2014), "Interpreting random forests".
        """
        return self.trees.contributions(np.ascontiguousarray(values))

    def _score(self, values: NDArray[np.float32]) -> Vector:
        scores = np.full(len(values), self.baseline)
        self.trees.add_to(scores, np.ascontiguousarray(values))
        return scores


class _Enough(Exception):
    """No more trees are wanted."""


class _Course:
    """What is watched while trees are added: the best number of them so far, and whether to go on."""

    def __init__(self, known: Table, held_out: Table, settings: Mapping[str, Any], supervision: Supervision) -> None:
        self._known, self._held_out = known, held_out
        self._settings, self._supervision = settings, supervision
        self._scores: dict[str, Vector] = {}
        self._seen = 0
        self._best = -math.inf
        self.best_count = 0

    def __call__(self, learner: Any, *_: object, **__: object) -> float:
        """Called by scikit-learn after every tree, with what it would score; looks at those added since."""
        if not self._scores:
            baseline = float(np.asarray(learner._baseline_prediction).reshape(-1)[0])
            for name, table in (("known", self._known), ("held_out", self._held_out)):
                self._scores[name] = np.full(len(table.label), baseline)
        count = len(learner._predictors)
        if count == self._seen or (count % CHECKED_EVERY and count < self._settings["trees"]):
            return 0.0
        added = Trees.of([each[0].nodes for each in learner._predictors[self._seen :]])
        added.add_to(self._scores["known"], self._known.features)
        added.add_to(self._scores["held_out"], self._held_out.features)
        self._seen = count
        self._look(count)
        return 0.0

    def _look(self, count: int) -> None:
        rank_ic = self._held_out.rank_ic(self._scores["held_out"])
        residual = self._known.label - self._scores["known"]
        loss = math.fsum(self._known.weights * residual**2) / len(residual)
        self._supervision.progress(Progress(count, self._settings["trees"], loss, rank_ic))
        patience = self._settings["patience"]
        if patience == "none" or rank_ic > self._best:
            self._best, self.best_count = rank_ic, count
        if self._supervision.stop():
            raise TrainingStopped(f"training stopped after {count} trees; it starts again from the beginning")
        if patience != "none" and count - max(self.best_count, 1) >= patience:
            raise _Enough


def _learn(known: Table, settings: Mapping[str, Any], seed: int, course: _Course) -> tuple[float, Trees]:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    learner = HistGradientBoostingRegressor(
        learning_rate=settings["learning_rate"],
        max_iter=settings["trees"],
        max_leaf_nodes=settings["leaves"],
        max_depth=settings["depth"],
        min_samples_leaf=settings["rows_in_leaf"],
        l2_regularization=settings["l2"],
        max_features=settings["features_per_split"],
        max_bins=settings["bins"],
        # Early stopping is on so that `course` is called; it never ends by scikit-learn's own rule.
        early_stopping=True,
        validation_fraction=None,
        n_iter_no_change=settings["trees"] + 1,
        scoring=course,
        random_state=seed % 2**32,
    )
    # At the end of patience the trees so far are all that is needed.
    with threadpool_limits(limits=settings["threads"], user_api="openmp"), contextlib.suppress(_Enough):
        learner.fit(known.features, known.label, sample_weight=known.weights)
    learned = [each[0].nodes for each in learner._predictors]
    return float(np.asarray(learner._baseline_prediction).reshape(-1)[0]), Trees.of(learned)


def _mean_values(nodes: NDArray[Any], leaf: NDArray[np.bool_]) -> Vector:
    """The values of leaves, and of other nodes the mean over their rows; children come after their parents."""
    values = np.where(leaf, nodes["value"], 0.0)
    counts = nodes["count"].astype(np.float64)
    for place in range(len(nodes) - 1, -1, -1):
        if not leaf[place]:
            left, right = int(nodes["left"][place]), int(nodes["right"][place])
            values[place] = (counts[left] * values[left] + counts[right] * values[right]) / counts[place]
    return values


@njit(cache=True, nogil=True)
def _add(
    scores: Vector,
    values: NDArray[np.float32],
    roots: Integers,
    feature: Integers,
    threshold: Vector,
    left: Integers,
    right: Integers,
    value: Vector,
) -> None:
    for row in range(len(scores)):
        for root in roots:
            node = root
            while feature[node] >= 0:
                node = left[node] if values[row, feature[node]] <= threshold[node] else right[node]
            scores[row] += value[node]


@njit(cache=True, nogil=True)
def _contributions(
    values: NDArray[np.float32],
    roots: Integers,
    feature: Integers,
    threshold: Vector,
    left: Integers,
    right: Integers,
    value: Vector,
) -> Matrix:
    result = np.zeros(values.shape)
    for row in range(len(values)):
        for root in roots:
            node = root
            while feature[node] >= 0:
                following = left[node] if values[row, feature[node]] <= threshold[node] else right[node]
                result[row, feature[node]] += value[following] - value[node]
                node = following
    return result
