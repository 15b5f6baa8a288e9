"""Order statistics and ranks against NumPy and SciPy, in both precisions and with every kind of tie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stockpicker_dagster.research.order_statistics import (
    average_ranks,
    extremes,
    key_type,
    neighbours,
    quantile,
    write_keys,
)

PRECISIONS = pytest.mark.parametrize("precision", [np.float32, np.float64])


def keys_of(values: np.ndarray) -> np.ndarray:
    keys = np.empty(len(values), dtype=key_type(values))
    write_keys(values, keys)
    return keys


def numbers(precision: type) -> st.SearchStrategy[np.ndarray]:
    width = 8 * np.dtype(precision).itemsize
    plain = st.floats(width=width, allow_nan=False, allow_infinity=False)
    few = st.sampled_from([-1.0, -0.0, 0.0, 0.5, 3.0])
    return st.lists(st.one_of(plain, few), min_size=1, max_size=40).map(lambda each: np.array(each, dtype=precision))


@PRECISIONS
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_keys_sort_as_their_numbers_do(precision: type, data: st.DataObject) -> None:
    values = data.draw(numbers(precision))
    keys = keys_of(values)
    np.testing.assert_array_equal(np.greater.outer(values, values), np.greater.outer(keys, keys))
    np.testing.assert_array_equal(np.equal.outer(values, values), np.equal.outer(keys, keys))


@PRECISIONS
@settings(max_examples=200, deadline=None)
@given(data=st.data(), probability=st.floats(0, 1))
def test_a_quantile_lies_where_numpy_puts_it(precision: type, data: st.DataObject, probability: float) -> None:
    values = data.draw(numbers(precision))
    keys, ordered = keys_of(values), np.sort(values)
    position = probability * (len(values) - 1)
    below, above, share = neighbours(values, keys, probability)
    assert below == ordered[int(position)]
    assert above == ordered[min(int(position) + 1, len(values) - 1)]
    assert share == position - int(position)
    if np.abs(values.astype(np.float64)).max() < 1e300:
        expected = np.quantile(values.astype(np.float64), probability)
        # Between zero and its neighbour the last digits are those of the neighbour.
        rounding = 4 * np.finfo(np.float64).eps * max(abs(float(below)), abs(float(above)))
        assert quantile(values, keys, probability) == pytest.approx(expected, rel=1e-12, abs=max(rounding, 1e-300))
    assert extremes(values, keys) == (values.min(), values.max())


@PRECISIONS
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_ranks_are_those_of_scipy(precision: type, data: st.DataObject) -> None:
    values = data.draw(numbers(precision))
    np.testing.assert_array_equal(average_ranks(values), stats.rankdata(values))


def test_ranks_of_many_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=3000), rng.integers(-300, 300, 3000) / 7, rng.lognormal(12, 3, 3000)):
        np.testing.assert_array_equal(average_ranks(values), stats.rankdata(values))
