"""What learns: the small protocol that every algorithm keeps, its hyperparameters, and the list of those that ship.

An algorithm sees tables of scaled features and labels; where the rows come from, and on which machine it runs, is not
its business. Its artifact is data that loads without executing anything.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import ClassVar, Protocol, Self, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput

Value = bool | int | float | str

_ALGORITHMS = {"linear": ("stockpicker_dagster.research.algorithms.linear", "Ridge")}
"""Module and class of each algorithm, by name; the module is imported only when asked for."""


@dataclass(frozen=True)
class Hyperparameter:
    """One setting of an algorithm.

    `type` is that of a number or a text; `minimum` and `maximum` are allowed themselves; `words` are texts allowed
    beside it (or the only texts allowed); `unit` is what the number counts.
    """

    name: str
    type: type
    default: Value
    meaning: str
    unit: str
    minimum: float | None = None
    maximum: float | None = None
    words: tuple[str, ...] = ()

    def check(self, value: object) -> Value:
        """The value as the declared type; `InvalidInput` says what is allowed."""
        if isinstance(value, str) and value in self.words:
            return value
        if self.type in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
            whole = self.type is float or float(value).is_integer()
            if whole and math.isfinite(value) and self._within(value):
                return int(value) if self.type is int else float(value)
        if self.type in (bool, str) and type(value) is self.type and not self.words:
            return cast(Value, value)
        raise InvalidInput(
            f"hyperparameter {self.name} {value!r} is not allowed; allowed: {self.allowed} ({self.unit})"
        )

    @property
    def allowed(self) -> str:
        """What may be given, in words.

        >>> Hyperparameter("alpha", float, 1.0, "penalty", "variances", minimum=0.0, words=("auto",)).allowed
        "float of at least 0 or 'auto'"
        """
        parts = [self.type.__name__] if self.type is not str or not self.words else []
        if parts and self.minimum is not None:
            parts[0] += f" of at least {self.minimum:g}"
        if parts and self.maximum is not None:
            parts[0] += f"{' and' if self.minimum is not None else ' of'} at most {self.maximum:g}"
        return " or ".join(parts + [repr(word) for word in self.words])

    def _within(self, value: float) -> bool:
        return (self.minimum is None or value >= self.minimum) and (self.maximum is None or value <= self.maximum)


class Algorithm(Protocol):
    """A learner before and after training: `fit` returns a trained one.

    Scores are float64, higher meaning more attractive, in no unit; a row's score does not depend on the other rows that
    are scored with it.
    """

    name: ClassVar[str]
    hyperparameters: ClassVar[tuple[Hyperparameter, ...]]
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
    ) -> Self:
        """Learn `label` from `features` on `train`, which hold a column `date` too; `validation` only chooses.

        Rows without a label (null) are left out. Equal input and seed give equal models. Raises `InvalidInput` for
        features that are not finite, no labelled row, or hyperparameters that are not allowed.
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


def algorithm(name: str) -> type[Algorithm]:
    """The algorithm of that name; an unknown one raises `InvalidInput`, listing those known."""
    if name not in _ALGORITHMS:
        raise InvalidInput(f"algorithm {name!r} is unknown; known: {', '.join(sorted(_ALGORITHMS))}")
    module, attribute = _ALGORITHMS[name]
    return cast(type[Algorithm], getattr(import_module(module), attribute))


def validate_hyperparameters(name: str, given: Mapping[str, object] | None = None) -> dict[str, Value]:
    """All hyperparameters of the algorithm `name`: those given, checked, and defaults for the rest.

    Raises `InvalidInput` for an unknown name, naming the nearest one, and for a value that is not allowed.
    """
    declared = {each.name: each for each in algorithm(name).hyperparameters}
    for key in given or {}:
        if key not in declared:
            close = difflib.get_close_matches(key, declared, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise InvalidInput(
                f"hyperparameter {key!r} of algorithm {name!r} is unknown; {hint}known: {', '.join(sorted(declared))}"
            )
    return {key: each.check((given or {}).get(key, each.default)) for key, each in declared.items()}
