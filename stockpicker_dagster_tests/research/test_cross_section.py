from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research import cross_section
from stockpicker_dagster.research.cross_section import NEUTRAL, scale
from stockpicker_dagster.research.features import compute, feature_set
from stockpicker_dagster_tests.research.price_frames import CALENDAR, START, random_market, same_bytes, sessions

METHODS = ("standard", "minmax", "rank", "robust")
DAY = date(2024, 1, 2)


def frame_of(*days: list[float | None], name: str = "size") -> pl.DataFrame:
    """One date for each list of values, symbols A, B, C, ..."""
    rows = [
        {"symbol": f"{chr(65 + stock)}", "date": DAY + timedelta(days=day), name: value}
        for day, values in enumerate(days)
        for stock, value in enumerate(values)
    ]
    return pl.DataFrame(rows, schema={"symbol": pl.String, "date": pl.Date, name: pl.Float32})


def random_frame(seed: int = 0, missing: float = 0.1) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    days = [DAY + timedelta(days=day) for day in range(12)]
    rows = [(f"S{stock:02d}", day) for day in days for stock in range(40) if rng.random() < 0.9]
    frame = pl.DataFrame(rows, schema={"symbol": pl.String, "date": pl.Date}, orient="row")
    normal = np.where(rng.random(len(rows)) < missing, np.nan, rng.normal(5, 3, len(rows)))
    return frame.with_columns(
        pl.Series("normal", normal.astype(np.float32), nan_to_null=True),
        pl.Series("coarse", rng.integers(0, 6, len(rows)).astype(np.float32)),
        pl.Series("fat", rng.standard_t(2, len(rows)).astype(np.float32)),
    )


def by_day(frame: pl.DataFrame, name: str) -> list[np.ndarray]:
    return [day[name].to_numpy() for day in frame.partition_by("date", maintain_order=True)]


def sklearn_oracle(method: str, values: np.ndarray) -> np.ndarray:
    column = values.astype(np.float64).reshape(-1, 1)
    if method == "standard":
        return StandardScaler().fit_transform(column).ravel()
    if method == "minmax":
        return MinMaxScaler().fit_transform(column).ravel()
    if method == "robust":
        return RobustScaler().fit_transform(column).ravel() / 0.7413
    return (stats.rankdata(column.ravel()) - 1) / (len(column) - 1) - 0.5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["normal", "coarse", "fat"])
def test_each_date_agrees_with_scikit_learn(method: str, name: str) -> None:
    frame = random_frame()
    scaled = scale(frame, [name], method)
    for values, found in zip(by_day(frame.sort("date", "symbol"), name), by_day(scaled, name), strict=True):
        observed = ~np.isnan(values)
        expected = sklearn_oracle(method, values[observed])
        np.testing.assert_allclose(found[observed], expected, rtol=2e-6, atol=2e-6)
        np.testing.assert_allclose(found[~observed], np.median(expected), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_missing_value_changes_no_statistic(method: str) -> None:
    without = scale(frame_of([1.0, 2.0, 4.0, 9.0]), ["size"], method)
    with_missing = scale(frame_of([1.0, 2.0, 4.0, 9.0, None]), ["size"], method)
    assert with_missing["size"][:4].to_list() == without["size"].to_list()


def test_a_missing_value_is_the_median_or_neutral() -> None:
    day = frame_of([0.0, 1.0, 10.0, None])
    assert scale(day, ["size"], "minmax")["size"].to_list() == pytest.approx([0.0, 0.1, 1.0, 0.1])
    assert scale(day, ["size"], "minmax", "neutral")["size"].to_list() == pytest.approx([0.0, 0.1, 1.0, 0.5])
    assert scale(day, ["size"], "standard", "neutral")["size"][3] == 0.0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("values", [[7.0], [None], [None, None], [0.1, 0.1, 0.1], [3.0, None, 3.0]])
@pytest.mark.parametrize("imputation", ["median", "neutral"])
def test_a_day_without_differences_is_neutral(method: str, values: list[float | None], imputation: str) -> None:
    scaled = scale(frame_of(values), ["size"], method, imputation)
    assert scaled["size"].to_list() == [NEUTRAL[method]] * len(values)


def test_infinite_and_nan_values_are_missing() -> None:
    day = frame_of([1.0, float("inf"), 3.0, float("nan"), float("-inf")])
    assert scale(day, ["size"], "minmax")["size"].to_list() == [0.0, 0.5, 1.0, 0.5, 0.5]


def test_robust_falls_back_on_the_deviation_where_the_quartiles_coincide() -> None:
    values = [5.0] * 9 + [25.0]
    scaled = scale(frame_of(values), ["size"], "robust")["size"].to_list()
    assert scaled == pytest.approx([0.0] * 9 + [20.0 / np.std(values)])


def test_winsorizing_moves_the_tails_onto_their_quantiles_first() -> None:
    frame = random_frame(missing=0.0)
    scaled = scale(frame, ["fat"], "minmax", winsorize=(0.05, 0.9))
    for values, found in zip(by_day(frame.sort("date", "symbol"), "fat"), by_day(scaled, "fat"), strict=True):
        values = values.astype(np.float64)
        limited = np.clip(values, np.quantile(values, 0.05), np.quantile(values, 0.9))
        np.testing.assert_allclose(found, sklearn_oracle("minmax", limited), atol=2e-6)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), keep=st.integers(1, 12), winsorized=st.booleans())
def test_a_date_depends_on_no_other_date_and_on_no_order(method: str, seed: int, keep: int, winsorized: bool) -> None:
    frame, limits = random_frame(seed, missing=0.3), (0.02, 0.98) if winsorized else None
    names = ["normal", "coarse", "fat"]
    whole = scale(frame, names, method, winsorize=limits)
    shuffled = scale(frame.sample(fraction=1.0, shuffle=True, seed=seed), names, method, winsorize=limits)
    until = DAY + timedelta(days=keep)
    early = scale(frame.filter(pl.col("date") < until), names, method, winsorize=limits)
    only = scale(frame.filter(pl.col("date") == DAY), names, method, winsorize=limits)
    assert same_bytes(shuffled, whole)
    assert same_bytes(early, whole.filter(pl.col("date") < until))
    assert same_bytes(only, whole.filter(pl.col("date") == DAY))


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.one_of(st.none(), st.floats(width=32, allow_nan=True, allow_infinity=True)), max_size=30),
    imputation=st.sampled_from(["median", "neutral"]),
)
def test_the_result_is_finite_whatever_comes_in(method: str, values: list[float | None], imputation: str) -> None:
    scaled = scale(frame_of(values), ["size"], method, imputation)
    assert scaled.schema["size"] == pl.Float32
    assert scaled["size"].null_count() == 0
    assert np.isfinite(scaled["size"].to_numpy()).all()
    if method in ("minmax", "rank") and values:
        low = NEUTRAL[method] - 0.5
        assert scaled["size"].min() >= low
        assert scaled["size"].max() <= low + 1


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000))
def test_order_survives_and_units_do_not_matter(method: str, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=20)
    scaled = scale(frame_of(values.tolist()), ["size"], method)["size"].to_numpy()
    in_cents = scale(frame_of((100 * values + 1000).tolist()), ["size"], method)["size"].to_numpy()
    assert (np.argsort(scaled, kind="stable") == np.argsort(values.astype(np.float32), kind="stable")).all()
    np.testing.assert_allclose(in_cents, scaled, atol=1e-3)


UGLY_FEATURES = ("reversal_1w", "volatility_1m", "illiquidity", "high_volume", "zero_return_days", "bid_ask_spread")


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    method=st.sampled_from(METHODS),
    winsorized=st.booleans(),
    extreme=st.sampled_from([1.0, 1e-8, 1e8, 1e15]),
    silent=st.booleans(),
    still=st.integers(0, 4),
)
def test_features_of_ugly_prices_are_scaled_to_finite_values_of_their_own_day(
    seed: int, method: str, winsorized: bool, extreme: float, silent: bool, still: int
) -> None:
    days, rng = sessions(START, START.replace(month=4)), np.random.default_rng(seed)
    market = random_market(days, 5, seed)
    halted = pl.col("date").is_between(days[-9], days[-6]) & (pl.col("symbol") != "S0")
    bad_print = pl.when(pl.Series(rng.random(market.height) < 0.03)).then(extreme).otherwise(1.0)
    never_moves = pl.col("symbol").is_in([f"S{number}" for number in range(still)])
    levels = ("open", "high", "low", "close")
    prices = market.with_columns(
        *(pl.when(never_moves).then(13.0).otherwise(pl.col(name) * bad_print).alias(name) for name in levels),
        pl.when(silent).then(0.0).otherwise(pl.col("volume")).alias("volume"),
    ).filter(~halted)
    wanted = days[-12:]
    features = compute(feature_set("factors").select(UGLY_FEATURES), prices, wanted, CALENDAR, START, START)
    assert features.group_by("date").len()["len"].min() == 1
    limits = (0.1, 0.9) if winsorized else None
    whole = scale(features, UGLY_FEATURES, method, winsorize=limits)  # type: ignore[arg-type]
    assert np.isfinite(whole.select(UGLY_FEATURES).to_numpy()).all()
    for day in wanted[::5]:
        alone = scale(features.filter(pl.col("date") == day), UGLY_FEATURES, method, winsorize=limits)  # type: ignore[arg-type]
        assert same_bytes(alone, whole.filter(pl.col("date") == day))


@pytest.mark.parametrize("method", METHODS)
def test_neither_threads_nor_other_features_change_a_byte(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, names = random_frame(3), ["normal", "coarse", "fat"]
    whole = scale(frame, names, method)  # type: ignore[arg-type]
    for processors in (1, 5):
        monkeypatch.setattr(cross_section, "_PROCESSORS", processors)
        assert same_bytes(scale(frame, names, method), whole)  # type: ignore[arg-type]
    assert same_bytes(scale(frame, ["fat"], method), whole.select("symbol", "date", "fat"))  # type: ignore[arg-type]


def test_other_columns_are_dropped_and_rows_sorted() -> None:
    frame = random_frame().with_columns(other=pl.lit(1)).sample(fraction=1.0, shuffle=True, seed=0)
    scaled = scale(frame, ["fat"])
    assert scaled.columns == ["symbol", "date", "fat"]
    assert scaled.select("date", "symbol").equals(frame.select("date", "symbol").sort("date", "symbol"))


def test_wrong_input_is_refused_by_name() -> None:
    frame = frame_of([1.0, 2.0])
    with pytest.raises(InvalidInput, match="'zscore' is unknown; known: standard, minmax, rank, robust"):
        scale(frame, ["size"], "zscore")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="'mean' is unknown; known: median, neutral"):
        scale(frame, ["size"], "standard", "mean")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="'value'"):
        scale(frame, ["value"])
    with pytest.raises(InvalidInput, match="more than one row for A on 2024-01-02"):
        scale(pl.concat([frame, frame]), ["size"])
    with pytest.raises(InvalidInput, match=r"\(0.9, 0.1\)"):
        scale(frame, ["size"], winsorize=(0.9, 0.1))


def test_an_empty_frame_stays_empty() -> None:
    assert scale(frame_of(), ["size"]).schema == {"symbol": pl.String, "date": pl.Date, "size": pl.Float32}
