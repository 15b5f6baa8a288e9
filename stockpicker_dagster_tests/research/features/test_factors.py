from collections.abc import Callable
from datetime import date
from math import ceil, exp, log, sqrt

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from stockpicker_dagster.research.features import Feature, Panel, compute, feature_set
from stockpicker_dagster.research.features.panel import PANEL_COLUMNS
from stockpicker_dagster_tests.research.price_frames import (
    CALENDAR,
    START,
    prices_from,
    random_market,
    random_stock,
    same_bytes,
    sessions,
)

FACTORS = feature_set("factors")
DAYS = sessions(START, date(2019, 12, 31))
EACH_FACTOR = pytest.mark.parametrize("factor", FACTORS.features, ids=FACTORS.names)


# Every formula against pandas, written from the docstrings ------------------------------------------------------------


def over(series: pd.Series, window: int) -> "pd.api.typing.Rolling":
    return series.rolling(window, min_periods=max(2, ceil(2 * window / 3)))


def discreteness(stock: pd.DataFrame) -> pd.Series:
    balance = over((stock.r > 0).astype(float).where(stock.r.notna()) - (stock.r < 0), 231).mean()
    return np.sign(stock.P.shift(21) / stock.P.shift(252) - 1) * -balance.shift(21)


def corwin_schultz(stock: pd.DataFrame) -> pd.Series:
    def spread(high: float, low: float, before: pd.Series) -> float:
        if not np.isfinite([high, low, before.high, before.low, before.P]).all():
            return np.nan
        if low > before.P:
            high, low = high - (low - before.P), before.P
        elif high < before.P:
            high, low = before.P, low + (before.P - high)
        beta = log(high / low) ** 2 + log(before.high / before.low) ** 2
        gamma = log(max(high, before.high) / min(low, before.low)) ** 2
        alpha = (sqrt(2 * beta) - sqrt(beta)) / (3 - 2 * sqrt(2)) - sqrt(gamma / (3 - 2 * sqrt(2)))
        return max(0.0, 2 * (exp(alpha) - 1) / (1 + exp(alpha)))

    adjusted = pd.DataFrame({"high": stock.high * stock.factor, "low": stock.low * stock.factor, "P": stock.P})
    daily = [np.nan] + [
        spread(adjusted.high.iloc[row], adjusted.low.iloc[row], adjusted.iloc[row - 1])
        for row in range(1, len(adjusted))
    ]
    return over(pd.Series(daily, index=stock.index), 21).mean()


def standardized_moment(power: int) -> Callable[[pd.Series], float]:
    return lambda window: stats.moment(window.dropna(), power) / stats.moment(window.dropna(), 2) ** (power / 2)


def garman_klass(stock: pd.DataFrame) -> pd.Series:
    daily = 0.5 * np.log(stock.high / stock.low) ** 2 - (2 * log(2) - 1) * np.log(stock.close / stock.open) ** 2
    return np.sqrt(over(daily, 21).mean())


def yang_zhang(stock: pd.DataFrame) -> pd.Series:
    k = 0.34 / (1.34 + 22 / 20)
    overnight = over(np.log(stock.open * stock.factor / stock.P.shift(1)), 21).var()
    return np.sqrt(overnight + k * over(np.log(stock.close / stock.open), 21).var() + (1 - k) * rogers_satchell(stock))


def rogers_satchell(stock: pd.DataFrame) -> pd.Series:
    above = np.log(stock.high / stock.close) * np.log(stock.high / stock.open)
    return over(above + np.log(stock.low / stock.close) * np.log(stock.low / stock.open), 21).mean()


def abdi_ranaldo(stock: pd.DataFrame) -> pd.Series:
    middle = (np.log(stock.high * stock.factor) + np.log(stock.low * stock.factor)) / 2
    close = np.log(stock.P)
    bounce = ((close - middle) * (close - middle.shift(-1))).shift(1)
    return np.sqrt(4 * over(bounce, 21).mean().clip(lower=0))


def roll(stock: pd.DataFrame) -> pd.Series:
    before = stock.r.shift(1)
    both = stock.r.where(before.notna()), before.where(stock.r.notna())
    return 2 * np.sqrt((-both[0].rolling(63, min_periods=42).cov(both[1], ddof=0)).clip(lower=0))


def signed_jump(stock: pd.DataFrame) -> pd.Series:
    up, down = (over(side * side, 63).sum() for side in (stock.r.clip(lower=0), stock.r.clip(upper=0)))
    return (up - down) / (up + down)


def sessions_since_largest(window: pd.Series) -> float:
    return float(np.nanargmax(window.to_numpy()[::-1]))


ORACLES: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "reversal_1w": lambda s: s.P / s.P.shift(5) - 1,
    "reversal_1m": lambda s: s.P / s.P.shift(21) - 1,
    "momentum_6_1": lambda s: s.P.shift(21) / s.P.shift(126) - 1,
    "momentum_12_1": lambda s: s.P.shift(21) / s.P.shift(252) - 1,
    "momentum_12_7": lambda s: s.P.shift(126) / s.P.shift(252) - 1,
    "momentum_change": lambda s: s.P / s.P.shift(126) - s.P.shift(126) / s.P.shift(252),
    "return_seasonality": lambda s: s.P.shift(231) / s.P.shift(252) - 1,
    "information_discreteness": discreteness,
    "variance_ratio": lambda s: over(np.log(s.P).diff(5), 126).var() / (5 * over(np.log(s.P).diff(), 126).var()),
    "dividend_yield": lambda s: 252 * over((1 - s.split_ratio / s.adjustment).where(s.close.notna()), 252).mean(),
    "overnight_momentum": lambda s: over(s.open * s.factor / s.P.shift(1) - 1, 21).mean(),
    "intraday_momentum": lambda s: over(s.close / s.open - 1, 21).mean(),
    "return_autocorrelation": lambda s: s.r.rolling(59, min_periods=40).corr(s.r.shift(1)),
    "high_52_week": lambda s: s.P / over(s.high * s.factor, 252).max(),
    "recency_of_high": lambda s: over(s.high * s.factor, 252).apply(sessions_since_largest) / -251 + 1,
    "stochastic_14": lambda s: (
        (s.P - over(s.low * s.factor, 14).min())
        / (over(s.high * s.factor, 14).max() - over(s.low * s.factor, 14).min())
    ),
    "price_to_average_200": lambda s: s.P / over(s.P, 200).mean() - 1,
    "price_to_average_50": lambda s: s.P / over(s.P, 50).mean() - 1,
    "moving_average_distance": lambda s: over(s.P, 21).mean() / over(s.P, 200).mean() - 1,
    "relative_strength_14": lambda s: over(s.r.clip(lower=0), 14).mean() / over(s.r.abs(), 14).mean(),
    "volatility_1m": lambda s: over(s.r, 21).std(),
    "volatility_3m": lambda s: over(s.r, 63).std(),
    "volatility_12m": lambda s: over(s.r, 252).std(),
    "downside_volatility": lambda s: np.sqrt(over(s.r.clip(upper=0) ** 2, 63).mean()),
    "maximum_daily_return": lambda s: over(s.r, 21).max(),
    "five_largest_returns": lambda s: over(s.r, 21).apply(lambda window: window.nlargest(5).mean()),
    "relative_signed_jump": signed_jump,
    "overnight_variance_share": lambda s: (
        over(s.open * s.factor / s.P.shift(1), 63).var()
        / (over(s.open * s.factor / s.P.shift(1), 63).var() + over(s.close / s.open, 63).var())
    ),
    "rogers_satchell_volatility": lambda s: np.sqrt(rogers_satchell(s)),
    "yang_zhang_volatility": yang_zhang,
    "close_high_low_spread": abdi_ranaldo,
    "roll_spread": roll,
    "minimum_daily_return": lambda s: over(s.r, 21).min(),
    "return_skewness": lambda s: over(s.r, 63).apply(standardized_moment(3)),
    "return_kurtosis": lambda s: over(s.r, 63).apply(standardized_moment(4)) - 3,
    "parkinson_volatility": lambda s: np.sqrt(over(np.log(s.high / s.low) ** 2, 21).mean() / (4 * log(2))),
    "garman_klass_volatility": garman_klass,
    "illiquidity": lambda s: over(s.r.abs() / (s.close * s.volume) * 1e6, 21).mean(),
    "dollar_volume": lambda s: np.log(over(s.close * s.volume, 21).mean()),
    "volume_variability": lambda s: over(s.close * s.volume, 63).std() / over(s.close * s.volume, 63).mean(),
    "high_volume": lambda s: ((over(s.V, 50).rank() - 1) / (over(s.V, 50).count() - 1)).where(s.V.notna()),
    "volume_trend": lambda s: over(s.V, 21).mean() / over(s.V, 252).mean() - 1,
    "return_volume_correlation": lambda s: s.r.rolling(63, min_periods=42).corr(s.V.where(s.r.notna())),
    "zero_return_days": lambda s: over((s.r.abs() < 1e-9).astype(float).where(s.r.notna()), 63).mean(),
    "bid_ask_spread": corwin_schultz,
    "price_level": lambda s: np.log(s.close),
}


@pytest.fixture(scope="module")
def stock() -> tuple[Panel, pd.DataFrame]:
    prices = random_stock("A", DAYS, seed=5, gap_share=0.04)
    frame = prices.to_pandas().set_index("date").reindex(pd.to_datetime(DAYS))
    frame["factor"] = frame.adjustment.fillna(1.0).cumprod()
    frame["P"] = frame.close * frame.factor
    frame["r"] = frame.P / frame.P.shift(1) - 1
    frame["V"] = frame.volume / frame.split_ratio.fillna(1.0).cumprod()
    frame.loc[frame.r.abs() < 1e-12, "r"] = 0.0
    return Panel.from_prices(prices, DAYS, ["A"]), frame


def test_every_factor_has_an_independent_check() -> None:
    assert set(ORACLES) == set(FACTORS.names)


@EACH_FACTOR
def test_a_factor_agrees_with_pandas(factor: Feature, stock: tuple[Panel, pd.DataFrame]) -> None:
    panel, frame = stock
    found = factor(panel)[:, 0]
    expected = ORACLES[factor.name](frame).to_numpy(dtype=float)
    assert np.isfinite(expected).sum() > 200
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


# Worked cases and closed forms ----------------------------------------------------------------------------------------


def factor_at_end(name: str, **prices: np.ndarray | float) -> float:
    close = np.asarray(prices.pop("close"), dtype=float)
    days = DAYS[: len(close)]
    panel = Panel.from_prices(prices_from("A", days, close, **prices), days, ["A"])  # type: ignore[arg-type]
    return float(FACTORS.select([name]).features[0](panel)[-1, 0])


def test_steady_growth_has_the_momentum_of_its_rate() -> None:
    close = 100 * 1.001 ** np.arange(300)
    assert factor_at_end("momentum_12_1", close=close) == pytest.approx(1.001**231 - 1)
    assert factor_at_end("momentum_12_7", close=close) == pytest.approx(1.001**126 - 1)
    assert factor_at_end("reversal_1w", close=close) == pytest.approx(1.001**5 - 1)
    assert factor_at_end("information_discreteness", close=close) == -1.0
    assert factor_at_end("relative_strength_14", close=close) == 1.0
    assert factor_at_end("high_52_week", close=close) == 1.0


def test_steady_growth_has_no_volatility_to_speak_of() -> None:
    close = 100 * 1.001 ** np.arange(300)
    for name in ("volatility_1m", "volatility_12m", "return_skewness", "return_kurtosis", "return_autocorrelation"):
        assert np.isnan(factor_at_end(name, close=close))


def test_a_stock_that_never_moves_has_zero_return_days_only() -> None:
    close = np.full(300, 20.0)
    assert factor_at_end("zero_return_days", close=close) == 1.0
    assert factor_at_end("parkinson_volatility", close=close) == 0.0
    assert factor_at_end("bid_ask_spread", close=close) == 0.0
    assert factor_at_end("high_volume", close=close) == 0.5
    assert np.isnan(factor_at_end("relative_strength_14", close=close))
    assert np.isnan(factor_at_end("volume_variability", close=close))


def test_a_bounce_between_bid_and_ask_is_found_as_the_spread() -> None:
    # A fixed true price with every session trading at bid and ask: the estimator is exact.
    mid, spread = 50.0, 0.02
    close = np.full(60, mid)
    found = factor_at_end(
        "bid_ask_spread", close=close, high=np.full(60, mid * (1 + spread / 2)), low=np.full(60, mid * (1 - spread / 2))
    )
    assert found == pytest.approx(spread, rel=1e-3)


def test_range_volatilities_find_the_volatility_of_a_diffusion() -> None:
    rng = np.random.default_rng(8)
    sigma, steps, days = 0.02, 4000, 21
    path = np.cumsum(rng.normal(0, sigma / sqrt(steps), (40, days, steps)), axis=2)
    opens, highs = np.full((40, days), 100.0), 100 * np.exp(np.maximum(path.max(axis=2), 0))
    lows, closes = 100 * np.exp(np.minimum(path.min(axis=2), 0)), 100 * np.exp(path[:, :, -1])
    for name in ("parkinson_volatility", "garman_klass_volatility"):
        found = [
            factor_at_end(name, close=closes[run], open=opens[run], high=highs[run], low=lows[run]) for run in range(40)
        ]
        assert np.sqrt(np.mean(np.square(found))) == pytest.approx(sigma, rel=0.05)


def test_illiquidity_is_the_return_per_million_traded() -> None:
    close = 10.0 * 1.01 ** np.arange(60)
    assert factor_at_end("illiquidity", close=close, volume=2e6 / close) == pytest.approx(0.01 / 2)


def test_four_dividends_of_a_percent_yield_four_percent() -> None:
    paid = np.where(np.isin(np.arange(300), [60, 123, 186, 249]), 0.01, 0.0)
    close = 50.0 * np.cumprod(1.0 - paid)
    found = factor_at_end("dividend_yield", close=close, adjustment=1.0 / (1.0 - paid))
    assert found == pytest.approx(0.04)
    split = np.where(np.arange(300) == 200, 3.0, 1.0)
    assert factor_at_end("dividend_yield", close=close, split_ratio=split, adjustment=split / (1.0 - paid)) == found


def test_a_random_bounce_is_found_as_the_spread() -> None:
    # A constant true price, each close at the bid or the ask: over all 2^n paths the covariance is -(spread / 2)^2.
    spread, mid = 0.01, 40.0
    sides = np.random.default_rng(3).choice([-0.5, 0.5], (200, 66))
    prices = mid * (1 + spread * sides)
    found = [factor_at_end("roll_spread", close=close) for close in prices]
    assert np.mean(np.square(found)) == pytest.approx(spread**2, rel=0.1)


def test_a_walk_has_a_variance_ratio_of_one_and_a_bounce_a_smaller_one() -> None:
    rng = np.random.default_rng(4)
    walks = [100 * np.exp(np.cumsum(rng.normal(0, 0.01, 140))) for _ in range(60)]
    ratios = [factor_at_end("variance_ratio", close=walk) for walk in walks]
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.1)
    bounce = 100 * np.where(np.arange(140) % 2, 1.01, 1.0)
    assert factor_at_end("variance_ratio", close=bounce) == pytest.approx(0.2)


def test_days_without_volume_are_unobserved_in_illiquidity() -> None:
    close = 10.0 * 1.01 ** np.arange(60)
    volume = np.where(np.arange(60) % 4 == 0, 0.0, 2e6 / close)
    assert factor_at_end("illiquidity", close=close, volume=volume) == pytest.approx(0.01 / 2)
    assert np.isnan(factor_at_end("illiquidity", close=close, volume=0.0))


def test_normal_returns_have_the_moments_of_the_normal_distribution() -> None:
    quantiles = stats.norm.ppf((np.arange(63) + 0.5) / 63)
    returns = np.random.default_rng(1).permutation(quantiles) * 0.01
    close = np.concatenate(([50.0], 50 * np.cumprod(1 + returns)))
    assert factor_at_end("return_skewness", close=close) == pytest.approx(0.0, abs=1e-6)
    assert factor_at_end("volatility_3m", close=close) == pytest.approx(0.01, rel=0.03)
    semideviation = factor_at_end("downside_volatility", close=close)
    assert semideviation == pytest.approx(0.01 / sqrt(2), rel=0.03)
    assert factor_at_end("minimum_daily_return", close=close[-22:]) == pytest.approx(returns[-21:].min())


# Properties of every factor -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def market() -> pl.DataFrame:
    return random_market(DAYS, 5, seed=3)


def evaluate(prices: pl.DataFrame) -> dict[str, np.ndarray]:
    panel = Panel.from_prices(prices, DAYS, [f"S{number}" for number in range(5)])
    return {factor.name: factor(panel) for factor in FACTORS.features}


@pytest.fixture(scope="module")
def original(market: pl.DataFrame) -> dict[str, np.ndarray]:
    return evaluate(market)


CUT = 265
"""Late enough for the longest look-back before it, early enough for the longest lag after it."""


@pytest.fixture(scope="module")
def truncated(market: pl.DataFrame) -> dict[str, np.ndarray]:
    return evaluate(market.filter(pl.col("date") <= DAYS[CUT]))


@pytest.fixture(scope="module")
def other_future(market: pl.DataFrame) -> dict[str, np.ndarray]:
    noise = pl.when(pl.col("date") > DAYS[CUT]).then(1.7).otherwise(1.0)
    return evaluate(market.with_columns(pl.col(column) * noise for column in PANEL_COLUMNS))


@EACH_FACTOR
def test_features_ignore_the_future(
    factor: Feature,
    original: dict[str, np.ndarray],
    truncated: dict[str, np.ndarray],
    other_future: dict[str, np.ndarray],
) -> None:
    known = original[factor.name][: CUT + 1]
    assert np.isfinite(known).any()
    assert truncated[factor.name][: CUT + 1].tobytes() == known.tobytes()
    assert other_future[factor.name][: CUT + 1].tobytes() == known.tobytes()
    assert other_future[factor.name][CUT + 1 :].tobytes() != original[factor.name][CUT + 1 :].tobytes()


@EACH_FACTOR
def test_a_feature_needs_no_more_than_its_lookback(
    factor: Feature, market: pl.DataFrame, original: dict[str, np.ndarray]
) -> None:
    first = CUT - factor.lookback + 1
    # Events before the window move the whole level of an adjusted price, so only prices and volumes are taken away.
    nothing = pl.when(pl.col("date") < DAYS[first]).then(None)
    bare = market.with_columns(
        nothing.otherwise(pl.col(column)).alias(column) for column in ("open", "high", "low", "close", "volume")
    )
    panel = Panel.from_prices(bare, DAYS, [f"S{number}" for number in range(5)])
    assert factor(panel)[CUT].tobytes() == original[factor.name][CUT].tobytes()


@EACH_FACTOR
def test_a_feature_needs_all_of_its_lookback(
    factor: Feature, market: pl.DataFrame, original: dict[str, np.ndarray]
) -> None:
    days = range(300, 420)
    levels = [column for column in ("open", "high", "low", "close", "volume") if column in factor.inputs]
    moved = 0
    for day in days:
        first = pl.when(pl.col("date") == DAYS[day - factor.lookback + 1]).then(1.31).otherwise(1.0)
        panel = Panel.from_prices(
            market.filter(pl.col("symbol") == "S0").with_columns(
                # An event moves the level of all adjusted prices after it, so it counts only where nothing else does.
                pl.col(column) * first
                for column in levels or ["adjustment"]
            ),
            DAYS[: day + 1],
            ["S0"],
            since=day,
        )
        moved += factor(panel)[day].tobytes() != original[factor.name][day, :1].tobytes()
        if moved:
            return
    raise AssertionError(f"no day of {factor.name} depends on the first session of its look-back")


@EACH_FACTOR
def test_a_feature_depends_on_its_declared_inputs_and_on_no_other(
    factor: Feature, market: pl.DataFrame, original: dict[str, np.ndarray]
) -> None:
    for column in PANEL_COLUMNS:
        rng = np.random.default_rng(4)
        changed = market.with_columns(pl.col(column) * pl.Series(rng.uniform(0.9, 1.1, market.height)))
        panel = Panel.from_prices(changed, DAYS, [f"S{number}" for number in range(5)])
        unchanged = factor(panel).tobytes() == original[factor.name].tobytes()
        assert unchanged == (column not in factor.inputs), column


@EACH_FACTOR
def test_a_feature_is_as_invariant_to_scale_as_it_declares(
    factor: Feature, market: pl.DataFrame, original: dict[str, np.ndarray]
) -> None:
    dearer = evaluate_one(factor, market.with_columns(pl.col("open", "high", "low", "close") * 7.3))
    busier = evaluate_one(factor, market.with_columns(pl.col("volume") * 3.1))
    invariant = all(
        np.allclose(found, original[factor.name], rtol=1e-7, atol=1e-9, equal_nan=True) for found in (dearer, busier)
    )
    assert invariant == factor.scale_invariant


@EACH_FACTOR
def test_a_split_changes_no_feature_but_those_of_the_price_level(factor: Feature, market: pl.DataFrame) -> None:
    quiet = market.with_columns(split_ratio=1.0, adjustment=1.0)
    later = pl.col("date") >= DAYS[350]
    split_day = pl.when(pl.col("date") == DAYS[350]).then(4.0).otherwise(1.0)
    split = quiet.with_columns(
        *(
            pl.when(later).then(pl.col(column) / 4).otherwise(pl.col(column))
            for column in ("open", "high", "low", "close")
        ),
        volume=pl.when(later).then(pl.col("volume") * 4).otherwise(pl.col("volume")),
        split_ratio=split_day,
        adjustment=split_day,
    ).filter(pl.col("symbol") == "S0")
    before = evaluate_one(factor, quiet.filter(pl.col("symbol") == "S0"))
    same = np.allclose(evaluate_one(factor, split), before, rtol=1e-9, atol=1e-12, equal_nan=True)
    assert same != factor.price_level


def evaluate_one(factor: Feature, prices: pl.DataFrame) -> np.ndarray:
    return factor(Panel.from_prices(prices, DAYS, [f"S{number}" for number in range(5)]))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 100_000),
    gap_share=st.sampled_from([0.0, 0.3, 0.9]),
    listed=st.integers(0, 250),
    constant=st.booleans(),
    silent=st.booleans(),
    extreme=st.sampled_from([1.0, 1e-8, 1e8, 1e150, 1e-150]),
    absent=st.sampled_from(["open", "high", "low", "close", "volume", None]),
)
@example(seed=0, gap_share=0.0, listed=0, constant=True, silent=True, extreme=1.0, absent=None)
@example(seed=1, gap_share=0.3, listed=0, constant=False, silent=False, extreme=1e150, absent=None)
def test_features_of_ugly_prices_are_finite_or_null(
    seed: int, gap_share: float, listed: int, constant: bool, silent: bool, extreme: float, absent: str | None
) -> None:
    rng = np.random.default_rng(seed)
    days = DAYS[:280]
    prices = random_stock("A", days, seed, gap_share)
    if constant:
        prices = prices.with_columns(pl.lit(13.0).alias(column) for column in ("open", "high", "low", "close"))
    if silent:
        prices = prices.with_columns(volume=0.0)
    print_day = pl.Series(rng.random(prices.height) < 0.05)
    bad_print = pl.when(print_day).then(extreme).otherwise(1.0)
    prices = prices.with_columns(pl.col(column) * bad_print for column in ("open", "high", "low", "close"))
    if absent:
        prices = prices.with_columns(pl.when(print_day).then(None).otherwise(pl.col(absent)).alias(absent))
    prices = prices.filter(pl.col("date") >= days[listed])
    wanted = days[255:]
    found = compute(FACTORS, prices, wanted, CALENDAR, START, loaded_from=START)
    assert found.height == prices.filter(pl.col("date").is_in(wanted)).height
    values = found.select(FACTORS.names).fill_null(0.0).to_numpy()
    assert np.isfinite(values).all()
    one_day = compute(FACTORS, prices, wanted[-1:], CALENDAR, START, loaded_from=START)
    assert same_bytes(one_day, found.filter(pl.col("date") == wanted[-1]))
