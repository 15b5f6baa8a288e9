"""Order statistics, quantiles and ranks of the few hundred or thousand numbers of one cross-section.

Floating-point numbers are compared as integers that sort as they do: a search by halving then finds an order statistic
in a fixed number of passes over the numbers, several at a time and without a branch, and a radix sort ranks them. No
number may be NaN. What the statistics are used for is in `cross_section`.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
"""Of float32 or float64."""
Keys = NDArray[np.signedinteger[Any]]
"""Of int32 for float32, of int64 for float64."""
Key = np.signedinteger[Any] | int

_DIGIT = 8
"""Bits that the radix sort takes at a time: a table of 256 counts stays in the processor's nearest cache."""


def key_type(values: Floats) -> "np.dtype[np.signedinteger[Any]]":
    """The integers that `write_keys` needs for these numbers."""
    return np.dtype(f"i{values.itemsize}")


@njit(cache=True, nogil=True)
def write_keys(values: Floats, keys: Keys) -> None:
    """Fills `keys` with integers that sort as `values` do; zero and minus zero are equal.

    Positive numbers sort as their bits do, negative ones the other way round.
    """
    bits = values.view(keys.dtype)
    sign = 8 * keys.itemsize - 1
    others = (1 << sign) - 1 if sign < 63 else np.iinfo(np.int64).max
    for place in range(len(values)):
        keys[place] = bits[place] ^ ((bits[place] >> sign) & others) if values[place] != 0.0 else 0


@njit(cache=True, nogil=True)
def quantile(values: Floats, keys: Keys, probability: float) -> float:
    """Linear interpolation between order statistics, NumPy's default."""
    below, above, share = neighbours(values, keys, probability)
    return below + share * (above - below)


@njit(cache=True, nogil=True)
def neighbours(values: Floats, keys: Keys, probability: float) -> tuple[float, float, float]:
    """The two order statistics between which a quantile lies, and how far it is from the first to the second."""
    position = probability * (len(values) - 1)
    rank = int(position)
    key, following = _smallest(keys, rank)
    return _value_of(values, keys, key), _value_of(values, keys, following), position - rank


@njit(cache=True, nogil=True)
def extremes(values: Floats, keys: Keys) -> tuple[float, float]:
    """The smallest and the largest value."""
    return _value_of(values, keys, keys.min()), _value_of(values, keys, keys.max())


@njit(cache=True, nogil=True)
def _smallest(keys: Keys, rank: int) -> tuple[Key, Key]:
    """The key that `rank` others precede in ascending order, and the one after it, or itself if it is the last.

    Halves the range in which it lies until exactly the keys up to it are below, or, if it has equals, until it is left.
    """
    low, high = np.int64(keys.min()), np.int64(keys.max())
    while low < high:
        middle = (low & high) + ((low ^ high) >> 1)
        count = _count_up_to(keys, middle)
        if count == rank + 1:
            return _last_up_to(keys, middle), _first_above(keys, middle)
        if count > rank:
            high = middle
        else:
            low = middle + 1
    return low, low if _count_up_to(keys, low) > rank + 1 else _first_above(keys, low)


@njit(cache=True, nogil=True)
def _count_up_to(keys: Keys, limit: Key) -> int:
    bound = keys.dtype.type(limit)
    count = 0
    for place in range(len(keys)):
        count += keys[place] <= bound
    return count


@njit(cache=True, nogil=True)
def _last_up_to(keys: Keys, limit: Key) -> Key:
    """The largest key of those up to `limit`, of which there is one."""
    bound, found = keys.dtype.type(limit), keys.min()
    smallest = found
    for place in range(len(keys)):
        below = keys[place] if keys[place] <= bound else smallest
        found = below if below > found else found
    return np.int64(found)


@njit(cache=True, nogil=True)
def _first_above(keys: Keys, limit: Key) -> Key:
    """The smallest key of those above `limit`; the largest of all if there is none."""
    bound, found = keys.dtype.type(limit), keys.max()
    largest = found
    for place in range(len(keys)):
        above = keys[place] if keys[place] > bound else largest
        found = above if above < found else found
    return np.int64(found)


@njit(cache=True, nogil=True)
def _value_of(values: Floats, keys: Keys, key: Key) -> float:
    for place in range(len(keys)):
        if keys[place] == key:
            return np.float64(values[place])
    return np.nan


@njit(cache=True, nogil=True)
def average_ranks(values: Floats) -> NDArray[np.float64]:
    """Ranks from 1, equal values sharing the mean of theirs."""
    keys = np.empty(len(values), dtype=np.int64)
    write_keys(values.astype(np.float64), keys)
    ranks, order = np.empty(len(values)), np.empty((2, len(values)), dtype=np.int32)
    rank_keys(keys, np.empty_like(keys), order, ranks)
    return ranks


@njit(cache=True, nogil=True)
def rank_keys(keys: Keys, spare: Keys, order: NDArray[np.int32], ranks: NDArray[np.float64]) -> None:
    """Fills `ranks` with the average rank of each key, from 1; overwrites `keys`, `spare` and the two rows of `order`.

    Afterwards the first row of `order` holds the places of the keys in ascending order.
    """
    _sort(keys, spare, order)
    ascending = order[0]
    first = 0
    for position in range(1, len(keys) + 1):
        if position == len(keys) or keys[position] != keys[first]:
            for tied in range(first, position):
                ranks[ascending[tied]] = 0.5 * (first + 1 + position)
            first = position


@njit(cache=True, nogil=True)
def _sort(keys: Keys, spare: Keys, order: NDArray[np.int32]) -> None:
    """Sorts `keys` and fills the first row of `order` with where each was: digit by digit, from the lowest."""
    counts = np.empty(1 << _DIGIT, dtype=np.int32)
    digits = 8 * keys.itemsize // _DIGIT
    source, target = keys, spare
    came_from, goes_to = order[0], order[1]
    for place in range(len(keys)):
        came_from[place] = place
    for digit in range(digits):
        shift = _DIGIT * digit
        # The highest digit holds the sign, and negative keys come first.
        flipped = 1 << (_DIGIT - 1) if digit == digits - 1 else 0
        counts[:] = 0
        for key in source:
            counts[((key >> shift) & 255) ^ flipped] += 1
        total = 0
        for value in range(1 << _DIGIT):
            total, counts[value] = total + counts[value], total
        for place in range(len(keys)):
            key = source[place]
            value = ((key >> shift) & 255) ^ flipped
            goes_to[counts[value]] = came_from[place]
            target[counts[value]] = key
            counts[value] += 1
        source, target = target, source
        came_from, goes_to = goes_to, came_from
