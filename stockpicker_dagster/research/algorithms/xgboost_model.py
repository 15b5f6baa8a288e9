"""A model that XGBoost wrote, read as data and scored: its trees, from UBJSON or JSON, with nothing of it executed.

XGBoost is not needed for it. The formats follow its documentation (Introduction to Model IO) and the UBJSON
specification, draft 12. Trees are walked in float32, as XGBoost does, so that scores agree to the last bits.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput

OBJECTIVES = ("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror")
"""What a model may have been trained for: those whose score is the sum of its trees as it is."""
_DEEPEST = 32
"""So deep a document of a model is nested at most."""
_INTEGERS = {b"i": ">i1", b"U": ">u1", b"I": ">i2", b"l": ">i4", b"L": ">i8"}
_NUMBERS = {**_INTEGERS, b"d": ">f4", b"D": ">f8"}


@dataclass(frozen=True)
class _Tree:
    """Arrays over nodes: children (-1 in a leaf), the feature and threshold of a split, or a leaf's value there."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float32]
    missing_left: NDArray[np.bool_]

    def leaves(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The leaf's value of each row."""
        at = np.zeros(len(values), np.int64)
        rows = np.arange(len(values))
        while len(rows):
            node = at[rows]
            inner = self.left[node] >= 0
            rows, node = rows[inner], node[inner]
            given = values[rows, self.feature[node]]
            goes_left = np.where(np.isnan(given), self.missing_left[node], given < self.threshold[node])
            at[rows] = np.where(goes_left, self.left[node], self.right[node])
        return self.threshold[at]


class XGBoostModel:
    """A trained model; where training stopped early, it is scored with the rounds up to the best one.

    Raises `InvalidInput` for bytes that are no such model, for another booster than trees, and for an objective whose
    scores are more than the sum of the trees.
    """

    def __init__(self, content: bytes) -> None:
        try:
            learner = _document(content)["learner"]
            parameters = learner["learner_model_param"]
            _expect_a_sum_of_trees(learner, parameters)
            model = learner["gradient_booster"]["model"]
            self.features = int(parameters["num_feature"])
            # A list of one since XGBoost 3.
            self._base = np.float32(str(parameters["base_score"]).strip("[]"))
            trees = [_tree(each, self.features) for each in model["trees"]]
            best = learner.get("attributes", {}).get("best_iteration")
            if best is not None:
                trees = trees[: (int(best) + 1) * int(model["gbtree_model_param"].get("num_parallel_tree", 1))]
        except (KeyError, IndexError, TypeError, ValueError, OverflowError, struct.error, RecursionError) as error:
            raise InvalidInput(
                f"the file is no model of XGBoost's that can be read ({error!r}); save it as UBJSON or JSON, which is "
                "what XGBoost 3 does"
            ) from error
        self._trees = trees

    def predict(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores of shape (rows,) for a matrix of shape (rows, features); NaN is a missing value.

        Raises `InvalidInput` for another number of features.
        """
        if values.ndim != 2 or values.shape[1] != self.features:
            raise InvalidInput(f"the values have the shape {values.shape}; the model has {self.features} features")
        given = np.ascontiguousarray(values, np.float32)
        scores = np.full(len(given), self._base, np.float32)
        for tree in self._trees:
            scores += tree.leaves(given)
        return scores.astype(np.float64)


def _expect_a_sum_of_trees(learner: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    booster, objective = learner["gradient_booster"]["name"], learner["objective"]["name"]
    if booster != "gbtree":
        raise InvalidInput(f"the model's booster is {booster!r}; allowed: 'gbtree'")
    if objective not in OBJECTIVES:
        raise InvalidInput(f"the model's objective is {objective!r}; allowed: {', '.join(map(repr, OBJECTIVES))}")
    if int(parameters.get("num_class", 0)) > 1 or int(parameters.get("num_target", 1)) != 1:
        raise InvalidInput("the model scores several targets at once; train it on one")


def _tree(stored: Mapping[str, Any], features: int) -> _Tree:
    if np.any(np.asarray(stored.get("split_type", []), np.int64)):
        raise InvalidInput("the model splits by categories; give it numbers")
    tree = _Tree(
        np.asarray(stored["left_children"], np.int64),
        np.asarray(stored["right_children"], np.int64),
        np.asarray(stored["split_indices"], np.int64),
        np.asarray(stored["split_conditions"], np.float32),
        np.asarray(stored["default_left"], np.int64).astype(bool),
    )
    nodes = len(tree.left)
    if not nodes or any(len(each) != nodes for each in vars(tree).values()):
        raise ValueError("the arrays of a tree have different lengths")
    inner = tree.left >= 0
    for children in (tree.left[inner], tree.right[inner]):
        # Children come after their parent, so that every walk ends.
        if np.any(children <= np.flatnonzero(inner)) or np.any(children >= nodes):
            raise ValueError("a node of a tree has no such child")
    if np.any(tree.feature[inner] < 0) or np.any(tree.feature[inner] >= features):
        raise ValueError("a tree splits by a feature that the model does not have")
    return tree


# The file -------------------------------------------------------------------------------------------------------------


def _document(content: bytes) -> dict[str, Any]:
    """What the file holds: JSON begins with a brace and a quotation mark, UBJSON with a brace and a length."""
    if content[:1] != b"{":
        raise ValueError(f"it begins with {content[:4]!r}")
    document = json.loads(content) if content[1:].lstrip()[:1] == b'"' else _UniversalBinary(content).value()
    if not isinstance(document, dict):
        raise TypeError(f"it holds a {type(document).__name__}")
    return document


class _UniversalBinary:
    """Reads one UBJSON document; lengths are believed only as far as there are bytes."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def value(self, marker: bytes | None = None, depth: int = 0) -> Any:
        if depth > _DEEPEST:
            raise ValueError(f"it is nested deeper than {_DEEPEST}")
        marker = marker or self._take(1)
        if marker in _NUMBERS:
            kind = np.dtype(_NUMBERS[marker])
            return np.frombuffer(self._take(kind.itemsize), kind)[0].item()
        if marker in (b"S", b"C"):
            return self._take(self._length() if marker == b"S" else 1).decode()
        if marker in (b"Z", b"T", b"F"):
            return {b"Z": None, b"T": True, b"F": False}[marker]
        if marker == b"[":
            return self._array(depth)
        if marker == b"{":
            return self._object(depth)
        raise ValueError(f"it has a value of the unknown kind {marker!r}")

    def _array(self, depth: int) -> Any:
        kind, count = self._header()
        if kind is not None and count is not None:
            if kind not in _NUMBERS:
                return [self.value(kind, depth + 1) for _ in range(count)]
            number = np.dtype(_NUMBERS[kind])
            return np.frombuffer(self._take(count * number.itemsize), number)
        if count is not None:
            return [self.value(None, depth + 1) for _ in range(count)]
        found = []
        while (marker := self._take(1)) != b"]":
            found.append(self.value(marker, depth + 1))
        return found

    def _object(self, depth: int) -> dict[str, Any]:
        kind, count = self._header()
        found: dict[str, Any] = {}
        while count is None or len(found) < count:
            marker = self._take(1)
            if count is None and marker == b"}":
                break
            name = self._take(self._length(marker)).decode()
            if name in found:
                raise ValueError(f"it has {name!r} twice")
            found[name] = self.value(kind, depth + 1)
        return found

    def _header(self) -> tuple[bytes | None, int | None]:
        """The kind of all elements and their number, where a container says so."""
        kind = count = None
        if self._peek() == b"$":
            self._take(1)
            kind = self._take(1)
        if self._peek() == b"#":
            self._take(1)
            count = self._length()
            # Every element takes a byte at least, but for those that are their own kind.
            if kind in (b"Z", b"T", b"F", b"N") or count > len(self._content) - self._at:
                raise ValueError(f"it has a container of {count} elements, and not so many bytes")
        elif kind is not None:
            raise ValueError("it has a container of one kind without a count")
        return kind, count

    def _length(self, marker: bytes | None = None) -> int:
        marker = marker or self._take(1)
        if marker not in _INTEGERS:
            raise ValueError(f"it has a length of the kind {marker!r}")
        length = int(self.value(marker))
        if length < 0:
            raise ValueError(f"it has a length of {length}")
        return length

    def _peek(self) -> bytes:
        return self._content[self._at : self._at + 1]

    def _take(self, count: int) -> bytes:
        taken = self._content[self._at : self._at + count]
        if len(taken) < count:
            raise ValueError("it ends too early")
        self._at += count
        return taken
