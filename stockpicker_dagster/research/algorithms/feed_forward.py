"""Feed-forward networks as plain matrices: scores, and what each feature adds to them, without a learning library.

Layers are affine maps with rectified linear units between them and one output. Every row is computed by itself in a
fixed order, in float64, so that its score has the same bytes however many rows are scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Sizes = NDArray[np.int64]


@dataclass(frozen=True)
class FeedForward:
    """`sizes` are the units of each layer, inputs first, 1 last; weights (inputs, outputs) and biases lie in a row."""

    sizes: Sizes
    parameters: Vector

    @classmethod
    def of(cls, layers: Sequence[tuple[NDArray[np.floating], NDArray[np.floating]]]) -> "FeedForward":
        """From (weights of shape (inputs, outputs), biases) of each layer; `InvalidInput` if they do not fit."""
        sizes = [layers[0][0].shape[0]] if layers and layers[0][0].ndim == 2 else []
        for weights, biases in layers:
            if weights.ndim != 2 or not sizes or weights.shape[0] != sizes[-1] or biases.shape != weights.shape[1:]:
                raise InvalidInput(
                    f"the layers of the model do not fit together: {[each[0].shape for each in layers]}; train it again"
                )
            sizes.append(weights.shape[1])
        if len(sizes) < 2 or sizes[-1] != 1:
            raise InvalidInput(f"the model ends in {sizes[-1:]} outputs instead of one; train it again")
        flat = [part.astype(np.float64).ravel() for layer in layers for part in layer]
        return cls(np.array(sizes, dtype=np.int64), np.concatenate(flat))

    def scores(self, values: NDArray[np.float32]) -> Vector:
        """The output for each row of `values`, of shape (rows, inputs)."""
        return _scores(np.ascontiguousarray(values), self.sizes, self.parameters)

    def contributions(self, values: NDArray[np.float32]) -> Matrix:
        """What each input adds to the output, against a row of zeros; they add up to the difference between the two.

        The rescale rule of Shrikumar, Greenside and Kundaje (2017), "Learning important features through propagating
        activation differences": a unit passes its output's difference back in proportion to its input's.
        """
        return _contributions(np.ascontiguousarray(values), self.sizes, self.parameters)


@njit(cache=True, nogil=True)
def _affine(before: Vector, parameters: Vector, place: int, inputs: int, outputs: int, after: Vector) -> None:
    biases = place + inputs * outputs
    for unit in range(outputs):
        after[unit] = parameters[biases + unit]
    for source in range(inputs):
        value, row = before[source], place + source * outputs
        if value != 0.0:
            for unit in range(outputs):
                after[unit] += value * parameters[row + unit]


@njit(cache=True, nogil=True)
def _scores(values: NDArray[np.float32], sizes: Sizes, parameters: Vector) -> Vector:
    widest = sizes.max()
    before, after = np.empty(widest), np.empty(widest)
    result = np.empty(len(values))
    layers = len(sizes) - 1
    for row in range(len(values)):
        for source in range(sizes[0]):
            before[source] = values[row, source]
        place = 0
        for layer in range(layers):
            inputs, outputs = sizes[layer], sizes[layer + 1]
            _affine(before, parameters, place, inputs, outputs, after)
            place += (inputs + 1) * outputs
            if layer < layers - 1:
                for unit in range(outputs):
                    after[unit] = max(after[unit], 0.0)
            before, after = after, before
        result[row] = before[0]
    return result


@njit(cache=True, nogil=True)
def _activations(start: Vector, sizes: Sizes, parameters: Vector, raw: Matrix) -> None:
    """Fills row l of `raw` with the affine outputs of layer l, before the rectification."""
    before, place = start, 0
    for layer in range(len(sizes) - 1):
        inputs, outputs = sizes[layer], sizes[layer + 1]
        _affine(before, parameters, place, inputs, outputs, raw[layer])
        place += (inputs + 1) * outputs
        before = np.maximum(raw[layer], 0.0)


@njit(cache=True, nogil=True)
def _contributions(values: NDArray[np.float32], sizes: Sizes, parameters: Vector) -> Matrix:
    layers, widest = len(sizes) - 1, sizes.max()
    reference, raw = np.zeros((layers, widest)), np.zeros((layers, widest))
    start = np.zeros(widest)
    _activations(start, sizes, parameters, reference)
    places = np.zeros(layers, dtype=np.int64)
    for layer in range(1, layers):
        places[layer] = places[layer - 1] + (sizes[layer - 1] + 1) * sizes[layer]
    result = np.zeros(values.shape)
    multiplier, following = np.empty(widest), np.empty(widest)
    for row in range(len(values)):
        for source in range(sizes[0]):
            start[source] = values[row, source]
        _activations(start, sizes, parameters, raw)
        multiplier[0] = 1.0
        for layer in range(layers - 1, -1, -1):
            inputs, outputs = sizes[layer], sizes[layer + 1]
            for source in range(inputs):
                total, base = 0.0, places[layer] + source * outputs
                for unit in range(outputs):
                    total += parameters[base + unit] * multiplier[unit]
                if layer > 0:
                    one, zero = raw[layer - 1, source], reference[layer - 1, source]
                    if abs(one - zero) > 1e-12:
                        total *= (max(one, 0.0) - max(zero, 0.0)) / (one - zero)
                    elif one <= 0.0:
                        total = 0.0
                following[source] = total
            multiplier, following = following, multiplier
        for source in range(sizes[0]):
            result[row, source] = multiplier[source] * start[source]
    return result
