import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stockpicker_dagster.research.features import rolling

WINDOW = 9
NEEDED = 6


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    rng = np.random.default_rng(1)
    matrix = rng.normal(3.0, 2.0, (80, 7))
    matrix[rng.random(matrix.shape) < 0.2] = np.nan
    matrix[:30, 2] = np.nan
    return matrix


def pandas_rolling(values: np.ndarray) -> "pd.api.typing.Rolling":
    return pd.DataFrame(values).rolling(WINDOW, min_periods=NEEDED)


def test_two_thirds_of_a_window_must_be_observed() -> None:
    assert rolling.observations_needed(WINDOW) == NEEDED
    column = np.array([[1.0]] * 5 + [[np.nan]] * 4)
    assert np.isnan(rolling.mean(column, WINDOW)[-1, 0])
    column[5] = 7.0
    assert rolling.mean(column, WINDOW)[-1, 0] == 2.0


def test_mean_and_extremes_agree_with_pandas(values: np.ndarray) -> None:
    reference = pandas_rolling(values)
    np.testing.assert_allclose(rolling.mean(values, WINDOW), reference.mean(), rtol=1e-12)
    np.testing.assert_array_equal(rolling.maximum(values, WINDOW), reference.max())
    np.testing.assert_array_equal(rolling.minimum(values, WINDOW), reference.min())


def test_the_latest_of_equal_maxima_counts(values: np.ndarray) -> None:
    coarse = np.round(values) + 20.0
    reference = pandas_rolling(coarse).apply(lambda window: np.nanargmax(window[::-1]), raw=True)
    np.testing.assert_array_equal(rolling.sessions_since_maximum(coarse, WINDOW), reference)
    nearly = np.array([[1.0], [1.0 - 1e-12], [0.5]])
    assert rolling.sessions_since_maximum(nearly, 3, tolerance=1e-9)[-1, 0] == 1.0
    assert rolling.sessions_since_maximum(nearly, 3)[-1, 0] == 2.0


def test_the_mean_of_the_largest_agrees_with_pandas(values: np.ndarray) -> None:
    reference = pandas_rolling(values).apply(lambda window: window.nlargest(4).mean(), raw=False)
    np.testing.assert_allclose(rolling.mean_of_largest(values, 4, WINDOW), reference, rtol=1e-12)


def test_deviation_agrees_with_pandas(values: np.ndarray) -> None:
    np.testing.assert_allclose(rolling.standard_deviation(values, WINDOW), pandas_rolling(values).std(), rtol=1e-10)


def test_skewness_and_kurtosis_agree_with_scipy(values: np.ndarray) -> None:
    reference = pandas_rolling(values)
    skewness = reference.apply(lambda window: stats.skew(window.dropna()), raw=False)
    kurtosis = reference.apply(lambda window: stats.kurtosis(window.dropna()), raw=False)
    np.testing.assert_allclose(rolling.skewness(values, WINDOW), skewness, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(rolling.excess_kurtosis(values, WINDOW), kurtosis, rtol=1e-9, atol=1e-12)


def test_correlation_agrees_with_pandas(values: np.ndarray) -> None:
    other = np.roll(values, 1, axis=1) * 0.5 + values
    both = pd.DataFrame(values).where(~np.isnan(other)), pd.DataFrame(other).where(~np.isnan(values))
    reference = both[0].rolling(WINDOW, min_periods=NEEDED).corr(both[1])
    np.testing.assert_allclose(rolling.correlation(values, other, WINDOW), reference, rtol=1e-8, atol=1e-10)


def test_rank_of_last_agrees_with_pandas(values: np.ndarray) -> None:
    coarse = np.round(values)
    rank = pandas_rolling(coarse).rank()
    others = pandas_rolling(coarse).count() - 1
    reference = ((rank - 1) / others).where(~np.isnan(coarse))
    np.testing.assert_allclose(rolling.rank_of_last(coarse, WINDOW), reference, rtol=1e-12)


def test_lag_looks_back_only(values: np.ndarray) -> None:
    np.testing.assert_array_equal(rolling.lag(values, 3), pd.DataFrame(values).shift(3))
    assert np.isnan(rolling.lag(values, 80)).all()
    assert np.isnan(rolling.lag(values, 500)).all()


def test_logarithm_is_undefined_where_nothing_is_positive() -> None:
    result = rolling.logarithm(np.array([[1.0, np.e, 0.0, -1.0, np.nan]]))
    np.testing.assert_array_equal(result, [[0.0, 1.0, np.nan, np.nan, np.nan]])


@pytest.mark.parametrize("level", [0.0, 1.0, 0.1, 1e9 / 3, 1e-9])
def test_a_variance_of_rounding_noise_is_undefined(level: float) -> None:
    rng = np.random.default_rng(2)
    noisy = level * (1.0 + 1e-15 * rng.integers(-3, 4, (40, 1)))
    moving = rng.normal(size=(40, 1))
    assert np.isnan(rolling.standard_deviation(noisy, 20)).all()
    assert np.isnan(rolling.skewness(noisy, 20)).all()
    assert np.isnan(rolling.excess_kurtosis(noisy, 20)).all()
    assert np.isnan(rolling.correlation(noisy, moving, 20)).all()


def test_noise_of_returns_is_measured_against_one() -> None:
    noise = 1e-16 * np.random.default_rng(3).integers(-3, 4, (40, 1)).astype(float)
    assert np.isnan(rolling.standard_deviation(noise, 20, scale=1.0)).all()
    assert not np.isnan(rolling.standard_deviation(noise + np.arange(40)[:, None] % 2, 20, scale=1.0)[-1, 0])


FUNCTIONS = {
    "mean": rolling.mean,
    "maximum": rolling.maximum,
    "minimum": rolling.minimum,
    "sessions_since_maximum": rolling.sessions_since_maximum,
    "mean_of_largest": lambda values, window, since=0: rolling.mean_of_largest(values, 3, window, since),
    "standard_deviation": rolling.standard_deviation,
    "skewness": rolling.skewness,
    "excess_kurtosis": rolling.excess_kurtosis,
    "rank_of_last": rolling.rank_of_last,
    "correlation": lambda values, window, since=0: rolling.correlation(values, values * values, window, since),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), columns=st.integers(1, 12), cut=st.integers(1, 60), start=st.integers(0, 40))
def test_a_value_depends_on_its_own_window_and_symbol_alone(
    name: str, seed: int, columns: int, cut: int, start: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(60, columns))
    values[rng.random(values.shape) < 0.25] = np.nan
    whole = FUNCTIONS[name](values, WINDOW)
    truncated = FUNCTIONS[name](values[:cut], WINDOW)
    alone = FUNCTIONS[name](values[:, :1], WINDOW)
    late = FUNCTIONS[name](values, WINDOW, since=start)
    shifted = FUNCTIONS[name](values[start:], WINDOW)
    assert truncated.tobytes() == whole[:cut].tobytes()
    assert alone.tobytes() == whole[:, :1].copy().tobytes()
    assert late[start:].tobytes() == whole[start:].tobytes()
    assert np.isnan(late[:start]).all()
    assert shifted[WINDOW - 1 :].tobytes() == whole[start + WINDOW - 1 :].tobytes()
