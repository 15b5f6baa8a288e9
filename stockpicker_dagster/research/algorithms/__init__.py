"""What learns: the small protocol that every algorithm keeps, and the list of those that ship.

An algorithm sees tables of scaled features and labels; where the rows come from, and on which machine it runs, is not
its business. Its artifact is data that loads without executing anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Protocol, Self, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms.hyperparameters import Hyperparameter, Scalar, Value, check_settings
from stockpicker_dagster.research.algorithms.supervision import UNSUPERVISED, Progress, Supervision, TrainingStopped

__all__ = [
    "UNSUPERVISED",
    "Algorithm",
    "Hyperparameter",
    "MissingPackage",
    "Progress",
    "Scalar",
    "Supervision",
    "TrainingStopped",
    "Value",
    "algorithm",
    "check_packages",
    "known_algorithms",
    "validate_hyperparameters",
]


@dataclass(frozen=True)
class _Entry:
    """Where an algorithm is; the module is imported only when asked for. `packages` are what its training imports."""

    module: str
    attribute: str
    packages: tuple[str, ...] = ()
    extra: str = ""


_ALGORITHMS = {
    "boosted_trees": _Entry("boosted_trees", "BoostedTrees"),
    "deep_reinforcement_learning": _Entry(
        "deep_reinforcement_learning",
        "DeepReinforcementLearning",
        ("torch", "gymnasium", "stable_baselines3"),
        "deep",
    ),
    "linear": _Entry("linear", "LinearModel"),
    "neural_network": _Entry("neural_network", "NeuralNetwork", ("torch",), "deep"),
}


class MissingPackage(InvalidInput):
    """Something optional was asked for whose packages are not installed."""


class Algorithm(Protocol):
    """A learner before and after training: `fit` returns a trained one.

    Scores are float64, higher meaning more attractive, in no unit; a row's score does not depend on the other rows that
    are scored with it.
    """

    name: ClassVar[str]
    hyperparameters: ClassVar[tuple[Hyperparameter, ...]]
    warm_starts: ClassVar[bool]
    """Whether `fit` can begin from an earlier model."""
    features: tuple[str, ...]
    label: str
    chosen: dict[str, Value]
    """The hyperparameters as used, those that were chosen by the algorithm included."""
    metrics: dict[str, float]
    """What training measured, such as `validation_rank_ic`."""

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
        """Learn `label` from `features` on `train`, which hold a column `date` too; `validation` only chooses.

        Rows without a label (null) are left out. Every date weighs the same. Equal input and seed give equal models on
        one kind of machine. `start_from` is an earlier model of the same features to begin from, where the algorithm
        `warm_starts`. `horizon_days` is that of the label, in sessions. Raises `InvalidInput` for features that are not
        finite, no labelled row, labels that do not differ, or hyperparameters that are not allowed, and
        `TrainingStopped` if `supervision` asks for it.
        """

    def predict(self, values: NDArray[np.float32], features: Sequence[str]) -> NDArray[np.float64]:
        """Scores of shape (rows,) for a matrix of shape (rows, features) whose columns are named by `features`.

        Raises `InvalidInput`, naming them, if the features are not those of the training, or not finite.
        """

    def contributions(self, values: NDArray[np.float32], features: Sequence[str]) -> NDArray[np.float64]:
        """How much each feature adds to each score, of shape (rows, features)."""

    def save(self, directory: Path) -> None:
        """Write the artifact into `directory`, made if it is not there; the same model writes the same bytes."""

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read an artifact, executing nothing of it; `InvalidInput` if it is not one of this algorithm."""


def known_algorithms() -> tuple[str, ...]:
    """The names of the algorithms that ship."""
    return tuple(sorted(_ALGORITHMS))


def algorithm(name: str) -> type[Algorithm]:
    """The algorithm of that name; an unknown one raises `InvalidInput`, listing those known."""
    entry = _entry(name)
    module = import_module(f"stockpicker_dagster.research.algorithms.{entry.module}")
    return cast(type[Algorithm], getattr(module, entry.attribute))


def check_packages(name: str) -> None:
    """Raises `MissingPackage`, naming the extra to install, unless the algorithm's training can be imported."""
    entry = _entry(name)
    require_packages(f"algorithm {name!r}", entry.packages, entry.extra)


def require_packages(what: str, packages: Sequence[str], extra: str) -> None:
    """Raises `MissingPackage` for packages that are not installed, with the extra that brings them."""
    absent = [package for package in packages if find_spec(package) is None]
    if absent:
        raise MissingPackage(
            f"{what} needs {', '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not installed; install the "
            f"extra {extra!r}: pip install 'stockpicker-dagster[{extra}]'"
        )


def validate_hyperparameters(name: str, given: Mapping[str, object] | None = None) -> dict[str, Value]:
    """All hyperparameters of the algorithm `name` that apply: those given, checked, and defaults for the rest.

    Raises `InvalidInput` for an unknown name, naming the nearest one, for a value that is not allowed, for a given
    setting that means nothing beside the others, and for settings that an algorithm's own `check_together` refuses.
    """
    learner = algorithm(name)
    settings = check_settings(name, learner.hyperparameters, given)
    check_together = getattr(learner, "check_together", None)
    if check_together is not None:
        check_together(settings)
    return settings


def _entry(name: str) -> _Entry:
    if name not in _ALGORITHMS:
        raise InvalidInput(f"algorithm {name!r} is unknown; known: {', '.join(known_algorithms())}")
    return _ALGORITHMS[name]
