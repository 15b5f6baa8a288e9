"""Statistics of trailing windows of sessions, over matrices of shape (sessions, symbols).

Every window is computed afresh from its own rows, oldest first, and every symbol by itself: a value therefore depends
on nothing but the rows of its window, and has the same bytes whether one session is computed or a thousand. No factor
lives here, only what factors are made of.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

VARIANCE_FLOOR = 1e-12
"""A variance below this part of its scale is rounding noise, and counts as zero."""


def observations_needed(window: int) -> int:
    """How many sessions of a window must be observed: two thirds of them, and at least two.

    >>> observations_needed(2), observations_needed(21), observations_needed(252)
    (2, 14, 168)
    """
    return max(2, math.ceil(2 * window / 3))


def lag(values: Matrix, sessions: int) -> Matrix:
    """The value `sessions` rows earlier; NaN in the first rows."""
    lagged = np.full_like(values, np.nan)
    if sessions < len(values):
        lagged[sessions:] = values[: len(values) - sessions]
    return lagged


def logarithm(values: Matrix) -> Matrix:
    """The natural logarithm, NaN where `values` is not positive.

    Computed one element at a time: vector instructions may give an element another last bit in another position.
    """
    return _logarithm(np.ascontiguousarray(values))


def mean(values: Matrix, window: int, since: int = 0) -> Matrix:
    """The mean over the window that ends at each row from row `since` on; NaN where too little of it is observed."""
    return _mean(np.ascontiguousarray(values), window, observations_needed(window), since)


def maximum(values: Matrix, window: int, since: int = 0) -> Matrix:
    """The largest value of the window; NaN where too little of it is observed."""
    return _maximum(np.ascontiguousarray(values), window, observations_needed(window), since)


def minimum(values: Matrix, window: int, since: int = 0) -> Matrix:
    """The smallest value of the window; NaN where too little of it is observed."""
    return -maximum(-values, window, since)


def sessions_since_maximum(values: Matrix, window: int, since: int = 0, tolerance: float = 0.0) -> Matrix:
    """How many sessions ago the largest value of the window was, the latest of those within `tolerance` of it.

    `tolerance` is a part of the largest value, which is positive; NaN where too little of the window is observed.
    """
    largest = maximum(values, window, since)
    return _sessions_since(np.ascontiguousarray(values), largest * (1.0 - tolerance), window, since)


def mean_of_largest(values: Matrix, count: int, window: int, since: int = 0) -> Matrix:
    """The mean of the `count` largest values of the window; NaN where too little of it is observed.

    `count` is at most what has to be observed of the window.
    """
    return _mean_of_largest(np.ascontiguousarray(values), count, window, observations_needed(window), since)


def standard_deviation(values: Matrix, window: int, since: int = 0, scale: float = 0.0) -> Matrix:
    """The sample standard deviation (n - 1) of the window.

    NaN where too little is observed, or where the variance is below 1e-12 of the mean square of the values (or of
    `scale` squared, if that is larger: the noise of a return is relative to one, not to the return).
    """
    count, variance, _, _ = _moments(values, window, since, scale)
    return np.sqrt(variance * count / (count - 1.0))


def skewness(values: Matrix, window: int, since: int = 0, scale: float = 0.0) -> Matrix:
    """The third central moment over the 3/2 power of the second (population moments); NaN as in the deviation."""
    _, variance, third, _ = _moments(values, window, since, scale)
    return third / (variance * np.sqrt(variance))


def excess_kurtosis(values: Matrix, window: int, since: int = 0, scale: float = 0.0) -> Matrix:
    """The fourth central moment over the square of the second, less three; NaN as in the deviation."""
    _, variance, _, fourth = _moments(values, window, since, scale)
    return fourth / (variance * variance) - 3.0


def correlation(first: Matrix, second: Matrix, window: int, since: int = 0) -> Matrix:
    """Pearson's correlation over the sessions of the window on which both are observed.

    NaN where those are too few, or where the variance of either is below 1e-12 of its mean square.
    """
    both = np.where(np.isnan(first) | np.isnan(second), np.nan, 0.0)
    return _correlation(first + both, second + both, window, observations_needed(window), since)


def rank_of_last(values: Matrix, window: int, since: int = 0) -> Matrix:
    """The share of the window's other observations that the last one exceeds, ties counting half: from 0 to 1.

    NaN where the last one is missing or too little of the window is observed.
    """
    return _rank_of_last(np.ascontiguousarray(values), window, observations_needed(window), since)


def _moments(values: Matrix, window: int, since: int, scale: float) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    return _central_moments(np.ascontiguousarray(values), window, observations_needed(window), since, scale * scale)


# The kernels walk the window outside and the symbols inside: the sum of each symbol is taken in the order of its
# sessions, while the processor handles several symbols at a time. Without `fastmath` nothing is reordered.


@njit(cache=True, nogil=True)
def _logarithm(values: Matrix) -> Matrix:
    result = np.full(values.shape, np.nan)
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            if values[row, column] > 0.0:
                result[row, column] = math.log(values[row, column])
    return result


@njit(cache=True, nogil=True)
def _mean(values: Matrix, window: int, needed: int, since: int) -> Matrix:
    rows, columns = values.shape
    result = np.full((rows, columns), np.nan)
    total, count = np.empty(columns), np.empty(columns)
    for row in range(since, rows):
        total[:] = 0.0
        count[:] = 0.0
        for past in range(max(0, row - window + 1), row + 1):
            for column in range(columns):
                value = values[past, column]
                observed = value == value
                total[column] += value if observed else 0.0
                count[column] += 1.0 if observed else 0.0
        for column in range(columns):
            if count[column] >= needed:
                result[row, column] = total[column] / count[column]
    return result


@njit(cache=True, nogil=True)
def _maximum(values: Matrix, window: int, needed: int, since: int) -> Matrix:
    rows, columns = values.shape
    result = np.full((rows, columns), np.nan)
    largest, count = np.empty(columns), np.empty(columns)
    for row in range(since, rows):
        largest[:] = -np.inf
        count[:] = 0.0
        for past in range(max(0, row - window + 1), row + 1):
            for column in range(columns):
                value = values[past, column]
                largest[column] = value if value > largest[column] else largest[column]
                count[column] += 1.0 if value == value else 0.0
        for column in range(columns):
            if count[column] >= needed:
                result[row, column] = largest[column]
    return result


@njit(cache=True, nogil=True)
def _sessions_since(values: Matrix, bounds: Matrix, window: int, since: int) -> Matrix:
    """How many sessions ago a value of the window last reached the bound of its row."""
    rows, columns = values.shape
    result = np.full((rows, columns), np.nan)
    for row in range(since, rows):
        for past in range(max(0, row - window + 1), row + 1):
            for column in range(columns):
                if values[past, column] >= bounds[row, column]:
                    result[row, column] = row - past
    return result


@njit(cache=True, nogil=True)
def _mean_of_largest(values: Matrix, count: int, window: int, needed: int, since: int) -> Matrix:
    rows, columns = values.shape
    result = np.full((rows, columns), np.nan)
    largest = np.empty(count)
    for row in range(since, rows):
        for column in range(columns):
            largest[:] = -np.inf
            observed = 0
            for past in range(max(0, row - window + 1), row + 1):
                value = values[past, column]
                if value != value:
                    continue
                observed += 1
                place = count - 1
                if value <= largest[place]:
                    continue
                while place > 0 and largest[place - 1] < value:
                    largest[place] = largest[place - 1]
                    place -= 1
                largest[place] = value
            if observed >= needed:
                result[row, column] = largest.sum() / count
    return result


@njit(cache=True, nogil=True)
def _central_moments(
    values: Matrix, window: int, needed: int, since: int, scale: float
) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Count and central moments two to four; all NaN where the window is too thin or its variance is noise."""
    rows, columns = values.shape
    counts = np.full((rows, columns), np.nan)
    second, third, fourth = counts.copy(), counts.copy(), counts.copy()
    count, centre, square = np.empty(columns), np.empty(columns), np.empty(columns)
    sum2, sum3, sum4 = np.empty(columns), np.empty(columns), np.empty(columns)
    for row in range(since, rows):
        count[:] = 0.0
        centre[:] = 0.0
        square[:] = 0.0
        sum2[:] = 0.0
        sum3[:] = 0.0
        sum4[:] = 0.0
        for past in range(max(0, row - window + 1), row + 1):
            for column in range(columns):
                value = values[past, column]
                observed = value == value
                value = value if observed else 0.0
                count[column] += 1.0 if observed else 0.0
                centre[column] += value
                square[column] += value * value
        for column in range(columns):
            centre[column] /= max(count[column], 1.0)
            square[column] /= max(count[column], 1.0)
        for past in range(max(0, row - window + 1), row + 1):
            for column in range(columns):
                value = values[past, column]
                deviation = value - centre[column] if value == value else 0.0
                power = deviation * deviation
                sum2[column] += power
                sum3[column] += power * deviation
                sum4[column] += power * power
        for column in range(columns):
            size = count[column]
            if size >= needed and sum2[column] / size > VARIANCE_FLOOR * max(square[column], scale):
                counts[row, column] = size
                second[row, column] = sum2[column] / size
                third[row, column] = sum3[column] / size
                fourth[row, column] = sum4[column] / size
    return counts, second, third, fourth


@njit(cache=True, nogil=True)
def _correlation(first: Matrix, second: Matrix, window: int, needed: int, since: int) -> Matrix:
    """Both matrices are NaN in the same places."""
    rows, columns = first.shape
    result = np.full((rows, columns), np.nan)
    count, centre1, centre2 = np.empty(columns), np.empty(columns), np.empty(columns)
    square1, square2, sum1, sum2, cross = (
        np.empty(columns),
        np.empty(columns),
        np.empty(columns),
        np.empty(columns),
        np.empty(columns),
    )
    for row in range(since, rows):
        for column in range(columns):
            count[column] = centre1[column] = centre2[column] = 0.0
            square1[column] = square2[column] = sum1[column] = sum2[column] = cross[column] = 0.0
        for past in range(max(0, row - window + 1), row + 1):
            for column in range(columns):
                observed = first[past, column] == first[past, column]
                one = first[past, column] if observed else 0.0
                two = second[past, column] if observed else 0.0
                count[column] += 1.0 if observed else 0.0
                centre1[column] += one
                centre2[column] += two
                square1[column] += one * one
                square2[column] += two * two
        for column in range(columns):
            centre1[column] /= max(count[column], 1.0)
            centre2[column] /= max(count[column], 1.0)
        for past in range(max(0, row - window + 1), row + 1):
            for column in range(columns):
                observed = first[past, column] == first[past, column]
                one = first[past, column] - centre1[column] if observed else 0.0
                two = second[past, column] - centre2[column] if observed else 0.0
                sum1[column] += one * one
                sum2[column] += two * two
                cross[column] += one * two
        for column in range(columns):
            varies1 = sum1[column] > VARIANCE_FLOOR * square1[column]
            varies2 = sum2[column] > VARIANCE_FLOOR * square2[column]
            if count[column] >= needed and varies1 and varies2:
                value = cross[column] / (math.sqrt(sum1[column]) * math.sqrt(sum2[column]))
                result[row, column] = min(1.0, max(-1.0, value))
    return result


@njit(cache=True, nogil=True)
def _rank_of_last(values: Matrix, window: int, needed: int, since: int) -> Matrix:
    rows, columns = values.shape
    result = np.full((rows, columns), np.nan)
    below, count = np.empty(columns), np.empty(columns)
    for row in range(since, rows):
        below[:] = 0.0
        count[:] = 0.0
        for past in range(max(0, row - window + 1), row):
            for column in range(columns):
                value, last = values[past, column], values[row, column]
                below[column] += 1.0 if value < last else (0.5 if value == last else 0.0)
                count[column] += 1.0 if value == value else 0.0
        for column in range(columns):
            last = values[row, column]
            if last == last and count[column] + 1.0 >= needed:
                result[row, column] = below[column] / count[column]
    return result
