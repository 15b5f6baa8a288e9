import numpy as np
import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms import algorithm, known_algorithms
from stockpicker_dagster.research.algorithms.checked_scores import CheckedScores


class _Sum(CheckedScores):
    features = ("one", "two")

    def _score(self, values: np.ndarray) -> np.ndarray:
        return values.astype(np.float64).sum(axis=1)

    def _contributions(self, values: np.ndarray) -> np.ndarray:
        return values.astype(np.float64)


@pytest.mark.parametrize("name", known_algorithms())
def test_no_algorithm_scores_without_the_checks(name: str) -> None:
    learner = algorithm(name)
    assert issubclass(learner, CheckedScores)
    assert {"predict", "contributions"}.isdisjoint(vars(learner))


@pytest.mark.parametrize("asked", ["predict", "contributions"])
def test_rows_that_are_not_those_of_the_training_are_refused(asked: str) -> None:
    ask = getattr(_Sum(), asked)
    values = np.ones((3, 2), np.float32)
    assert ask(values, ["one", "two"]).sum() == 6.0
    for given, features, why in (
        (values, ["two", "one"], r"trained on \['one', 'two'\] and is given \['two', 'one'\]"),
        (values, ["one", "three"], r"missing \['two'\], not trained on \['three'\]"),
        (np.ones((3, 3), np.float32), ["one", "two"], r"shape \(3, 3\); it must be \(rows, 2\)"),
        (np.full((1, 2), np.nan, np.float32), ["one", "two"], "null, NaN or infinite"),
    ):
        with pytest.raises(InvalidInput, match=why):
            ask(given, features)
