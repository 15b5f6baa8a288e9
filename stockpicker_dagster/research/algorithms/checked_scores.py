"""What every algorithm checks before it scores; how it scores is its own."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stockpicker_dagster.research.algorithms.tables import check_given

Values = NDArray[np.float32]


class CheckedScores(ABC):
    """Scores and contributions of rows that are what the model was trained on: named alike, finite, of its width."""

    features: tuple[str, ...]

    def predict(self, values: Values, features: Sequence[str]) -> NDArray[np.float64]:
        """Scores of shape (rows,), the same bytes however many rows are scored; `InvalidInput` for other features."""
        check_given(values, features, self.features)
        return self._score(values)

    def contributions(self, values: Values, features: Sequence[str]) -> NDArray[np.float64]:
        """What each feature adds to each score, of shape (rows, features), as the algorithm defines it."""
        check_given(values, features, self.features)
        return self._contributions(values)

    @abstractmethod
    def _score(self, values: Values) -> NDArray[np.float64]:
        """Scores of rows that were checked; row by row, in float64."""

    @abstractmethod
    def _contributions(self, values: Values) -> NDArray[np.float64]:
        """Contributions of rows that were checked."""
