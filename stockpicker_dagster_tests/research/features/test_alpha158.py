"""Alpha158 against qlib itself, by worked examples where the two part, and by the properties that every set keeps."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stockpicker_dagster.research.features import Panel, compute, feature_set
from stockpicker_dagster.research.features.alpha158 import WINDOWS
from stockpicker_dagster.research.features.panel import PANEL_COLUMNS
from stockpicker_dagster_tests.research.features.qlib_alpha158 import qlib_alpha158
from stockpicker_dagster_tests.research.price_frames import (
    CALENDAR,
    START,
    prices_from,
    random_market,
    random_stock,
    same_bytes,
    sessions,
)

ALPHA158 = feature_set("alpha158")
DAYS = sessions(START, START.replace(year=2019, month=3))
STOCKS = [f"S{number}" for number in range(5)]
WHOLE_WINDOW = ("IMAX", "IMIN", "IMXD", "CNTP", "CNTN", "CNTD")
SINGLE = ("CORR", "CORD", "WVMA", "VSUM")
"""What is made of growths, logarithms and changes in single precision."""
Values = Mapping[str, np.ndarray]


def evaluate(prices: pl.DataFrame, since: int = 0, days: int = len(DAYS)) -> dict[str, np.ndarray]:
    panel = Panel.from_prices(prices, DAYS[:days], STOCKS, since)
    return {each.name: each(panel) for each in ALPHA158.features}


def bits(values: Values, rows: slice = slice(None), columns: slice = slice(None)) -> dict[str, bytes]:
    return {name: matrix[rows, columns].tobytes() for name, matrix in values.items()}


@pytest.fixture(scope="module")
def market() -> pl.DataFrame:
    return random_market(DAYS, len(STOCKS), seed=3)


@pytest.fixture(scope="module")
def original(market: pl.DataFrame) -> Values:
    return evaluate(market)


# Against qlib ---------------------------------------------------------------------------------------------------------


def as_traded(market: pl.DataFrame) -> pl.DataFrame:
    """Prices and volumes that float32, in which qlib stores them, holds exactly, without splits or dividends."""
    exact = [pl.col(column).cast(pl.Float32).cast(pl.Float64) for column in ("open", "high", "low", "close", "volume")]
    return market.with_columns(*exact, split_ratio=1.0, adjustment=1.0)


def compared(panel: Panel, column: int, precision: type = np.float32) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ours and qlib's for the sessions of one stock that have a row; qlib's of prices in `precision`."""
    stock = pd.DataFrame(
        {
            "open": panel.adjusted_open[:, column],
            "high": panel.adjusted_high[:, column],
            "low": panel.adjusted_low[:, column],
            "close": panel.adjusted_close[:, column],
            "volume": panel.adjusted_volume[:, column],
        }
    ).assign(vwap=lambda prices: (prices.high + prices.low + prices.close) / 3)
    present = panel.present[:, column]
    ours = pd.DataFrame({each.name: each(panel)[:, column] for each in ALPHA158.features})
    return ours[present], qlib_alpha158(stock.astype(precision))[present]


def worst_relative_difference(ours: pd.Series, peers: pd.Series) -> float:
    both = ours.notna() & np.isfinite(peers)
    difference = (ours - peers).abs()[both]
    # Differences of rounding around zero, such as the residual of a line through two points, have no relative size.
    return float((difference[difference > 1e-9] / peers.abs()[both]).max()) if (difference > 1e-9).any() else 0.0


@pytest.mark.parametrize("gap_share", [0.0, 0.1])
def test_all_158_features_equal_qlib_to_1e_5(gap_share: float) -> None:
    pytest.importorskip("qlib", reason="qlib is installed by the extra `peers`")
    listed = random_stock("S1", DAYS, 8, gap_share).filter(pl.col("date") >= DAYS[150])
    halted = random_stock("S2", DAYS, 9, gap_share).filter(~pl.col("date").is_between(DAYS[100], DAYS[140]))
    market = pl.concat([random_stock("S0", DAYS, 7, gap_share), listed, halted])
    panel = Panel.from_prices(as_traded(market), DAYS, ["S0", "S1", "S2"])
    for column in range(3):
        ours, peers = compared(panel, column)
        assert list(ours) == list(peers)
        for name in ours:
            assert worst_relative_difference(ours[name], peers[name]) < 1e-5, name
            lacking = ours[name].isna() & np.isfinite(peers[name])
            assert not lacking.any() or name.rstrip("0123456789") in WHOLE_WINDOW, name
            assert not (ours[name].notna() & ~np.isfinite(peers[name])).any(), name


def test_splits_and_dividends_are_as_in_qlib_on_adjusted_prices(market: pl.DataFrame) -> None:
    pytest.importorskip("qlib", reason="qlib is installed by the extra `peers`")
    panel = Panel.from_prices(market, DAYS, ["S0"])
    ours, peers = compared(panel, 0, np.float64)
    # Where a dividend undoes a move to the last digit, qlib ranks and counts rounding; ours takes the closes as equal.
    ties = ("RANK", "CNTP", "CNTN", "CNTD", "SUMP", "SUMN", "SUMD")
    for name in ours:
        if name.startswith(SINGLE):
            # Of prices in double precision qlib rounds nothing, of its own files it does.
            np.testing.assert_allclose(ours[name], peers[name].replace(np.inf, np.nan), atol=2e-5, err_msg=name)
        elif not name.startswith(ties):
            assert worst_relative_difference(ours[name], peers[name]) < 1e-5, name


@pytest.mark.real_data
def test_real_prices_give_what_qlib_gives(real_data: Path) -> None:
    pytest.importorskip("qlib", reason="qlib is installed by the extra `peers`")
    tickers = ["AAPL", "KO", "XOM", "GE", "BAC", "AMZN"]
    stored = pl.read_parquet(real_data / "prices" / "large_caps_88_2012_2017.parquet").filter(
        pl.col("ticker").is_in(tickers)
    )
    rows = stored.rename({"ticker": "symbol"}).with_columns(
        pl.col("date").cast(pl.Date),
        pl.col("open", "high", "low", "close", "volume").cast(pl.Float64),
        split_ratio=1.0,
        adjustment=1.0,
    )
    days = CALENDAR.sessions(date(2012, 9, 4), date(2014, 8, 29))
    panel = Panel.from_prices(as_traded(rows), days, tickers)
    for column in range(len(tickers)):
        ours, peers = compared(panel, column)
        for name in ours:
            assert worst_relative_difference(ours[name], peers[name]) < 1e-5, name


# Where qlib divides nothing by nothing --------------------------------------------------------------------------------


def at_end(**columns: np.ndarray | float) -> dict[str, float]:
    """The features of the last session of one stock with these prices and volumes."""
    close = np.asarray(columns.pop("close"), dtype=float)
    days = DAYS[: len(close)]
    prices = prices_from("A", days, close, **columns).filter(pl.col("close").is_not_nan())  # type: ignore[arg-type]
    panel = Panel.from_prices(prices, days, ["A"])
    return {each.name: float(each(panel)[-1, 0]) for each in ALPHA158.features}


def named(values: dict[str, float], *prefixes: str) -> np.ndarray:
    return np.array([values[f"{prefix}{window}"] for prefix in prefixes for window in WINDOWS])


def test_a_stock_that_does_not_move_has_no_deviation_line_place_path_or_correlation() -> None:
    still = at_end(close=np.full(70, 13.7), volume=np.full(70, 1e5))
    undefined = (
        "STD",
        "RSQR",
        "CORR",
        "CORD",
        "RSV",
        "SUMP",
        "SUMN",
        "SUMD",
        "VSTD",
        "WVMA",
        "VSUMP",
        "VSUMN",
        "VSUMD",
    )
    assert np.isnan(named(still, *undefined)).all()
    assert (named(still, "ROC", "MA", "MAX", "MIN", "QTLU", "QTLD", "VMA") == 1.0).all()
    assert (named(still, "BETA", "RESI", "CNTP", "CNTN", "CNTD", "IMXD") == 0.0).all()
    np.testing.assert_allclose(named(still, "RANK"), [(window + 1) / 2 / window for window in WINDOWS], rtol=1e-6)
    np.testing.assert_allclose(named(still, "IMAX", "IMIN"), [1 / window for window in WINDOWS] * 2, rtol=1e-6)
    assert all(still[shape] == 0.0 for shape in ("KMID", "KLEN", "KMID2", "KUP2", "KLOW2", "KSFT2"))


def test_a_price_whose_only_moves_are_its_adjustment_does_not_move() -> None:
    close = np.full(70, 30.0)
    split = np.ones(70)
    close[40:], split[40] = 30.0 / 7.0, 7.0
    still = at_end(close=close, split_ratio=split, adjustment=split, volume=np.where(np.arange(70) < 40, 1e4, 7e4))
    assert np.isnan(named(still, "STD", "RSQR", "CORR", "CORD", "RSV", "SUMP", "WVMA", "VSTD", "VSUMD")).all()
    np.testing.assert_allclose(named(still, "RANK"), [(window + 1) / 2 / window for window in WINDOWS], rtol=1e-6)


def test_a_session_without_volume_has_no_volume_ratios_and_the_rest_goes_on() -> None:
    rng = np.random.default_rng(5)
    close = 50 * np.cumprod(1 + rng.normal(0, 0.02, 70))
    volume = rng.uniform(1e5, 2e5, 70)
    volume[-1] = 0.0
    silent = at_end(close=close, volume=volume)
    assert np.isnan(named(silent, "VMA", "VSTD")).all()
    assert np.isfinite(named(silent, "CORR", "CORD", "WVMA", "VSUMP", "VSUMN", "STD")).all()
    volume[-2:] = 0.0, 1e5
    resumed = at_end(close=close, volume=volume)
    growth = np.log(volume[1:] / np.where(volume[:-1] > 0, volume[:-1], np.nan) + 1)
    pairs = pd.DataFrame({"price": close[1:] / close[:-1], "growth": growth}).tail(5).dropna()
    assert len(pairs) == 4
    assert resumed["CORD5"] == pytest.approx(pairs.corr().iloc[0, 1], rel=1e-4)


def test_a_stock_that_never_trades_has_prices_and_no_volume_features() -> None:
    rng = np.random.default_rng(6)
    silent = at_end(close=50 * np.cumprod(1 + rng.normal(0, 0.02, 70)), volume=np.zeros(70))
    assert np.isnan(named(silent, "VMA", "VSTD", "WVMA", "VSUMP", "VSUMN", "VSUMD", "CORR", "CORD")).all()
    assert np.isfinite(named(silent, "MA", "STD", "RANK", "SUMP")).all()


def test_the_first_sessions_of_a_stock_have_what_their_few_rows_say() -> None:
    first = at_end(close=np.array([10.0]))
    second = at_end(close=np.array([10.0, 11.0]))
    third = at_end(close=np.array([10.0, 11.0, 12.0]), volume=np.array([1e4, 2e4, 4e4]))
    assert {name for name, value in first.items() if np.isfinite(value)} == {
        *("KMID", "KLEN", "KMID2", "KUP", "KUP2", "KLOW", "KLOW2", "KSFT", "KSFT2", "OPEN0", "HIGH0", "LOW0", "VWAP0"),
        *(f"{prefix}{window}" for prefix in ("MA", "MAX", "MIN", "QTLU", "QTLD", "RANK", "VMA") for window in WINDOWS),
    }
    assert second["STD60"] == pytest.approx(np.std([10, 11], ddof=1) / 11)
    assert second["BETA60"] == pytest.approx(1 / 11)
    assert second["RSQR60"] == pytest.approx(1.0)
    assert second["SUMP60"] == 1.0
    assert third["QTLU60"] == pytest.approx(11.6 / 12)
    assert third["CORR60"] == pytest.approx(1.0, rel=1e-4)
    assert np.isnan(named(third, "ROC", *WHOLE_WINDOW)).all()


def test_a_gap_leaves_what_is_seen_and_takes_what_needs_every_session() -> None:
    rng = np.random.default_rng(7)
    close = 50 * np.cumprod(1 + rng.normal(0, 0.02, 70))
    close[-4] = np.nan
    gap = at_end(close=close, volume=rng.uniform(1e5, 2e5, 70))
    seen = pd.Series(close[-5:]).dropna()
    assert gap["MA5"] == pytest.approx(seen.mean() / close[-1])
    assert gap["STD5"] == pytest.approx(seen.std() / close[-1])
    assert gap["RANK5"] == pytest.approx(seen.rank(pct=True).iloc[-1])
    slope = np.polyfit(seen.index.to_numpy(), seen.to_numpy(), 1)[0]
    assert gap["BETA5"] == pytest.approx(slope / close[-1], rel=1e-5)
    assert np.isnan(named(gap, *WHOLE_WINDOW)).all()


def test_vwap_is_the_typical_price() -> None:
    close, high, low = np.array([10.0]), np.array([12.0]), np.array([9.5])
    assert at_end(close=close, high=high, low=low)["VWAP0"] == pytest.approx(31.5 / 3 / 10)


# Properties of all 158 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [61, 199])
def test_features_ignore_the_future(market: pl.DataFrame, original: Values, cut: int) -> None:
    other = pl.when(pl.col("date") > DAYS[cut]).then(1.7).otherwise(1.0)
    moved = evaluate(market.with_columns(pl.col(column) * other for column in PANEL_COLUMNS))
    assert bits(evaluate(market, days=cut + 1)) == bits(original, slice(cut + 1))
    assert bits(moved, slice(cut + 1)) == bits(original, slice(cut + 1))
    assert all(np.isfinite(values[:200]).any() for values in original.values())


def test_a_value_depends_on_its_own_stock_alone(market: pl.DataFrame, original: Values) -> None:
    for column, symbol in enumerate(STOCKS):
        panel = Panel.from_prices(market, DAYS, [symbol])
        alone = {each.name: each(panel) for each in ALPHA158.features}
        assert bits(alone) == bits(original, columns=slice(column, column + 1))


def test_a_value_is_the_same_wherever_computing_begins(market: pl.DataFrame, original: Values) -> None:
    for since in (1, 59, 60, 200):
        assert bits(evaluate(market, since=since), slice(since, None)) == bits(original, slice(since, None))


@pytest.mark.parametrize("day", [150, 251])
def test_a_feature_needs_its_lookback_and_no_more(market: pl.DataFrame, original: Values, day: int) -> None:
    levels = ("open", "high", "low", "close", "volume")
    for lookback in sorted({each.lookback for each in ALPHA158.features}):
        # Events move the level of all adjusted prices after them, so only prices and volumes are taken away.
        before = pl.col("date") < DAYS[day - lookback + 1]
        bare = evaluate(
            market.with_columns(pl.when(before).then(None).otherwise(pl.col(each)).alias(each) for each in levels),
            since=day,
            days=day + 1,
        )
        for each in ALPHA158.features:
            if each.lookback == lookback:
                assert bare[each.name][day].tobytes() == original[each.name][day].tobytes(), each.name


def test_every_feature_needs_the_first_session_of_its_lookback(market: pl.DataFrame, original: Values) -> None:
    waiting = {each.name: each.lookback for each in ALPHA158.features if each.lookback > 1}
    for day in range(200, len(DAYS)):
        for lookback in sorted(set(waiting.values())):
            size = 1.31 if day % 2 else 0.69
            first = pl.when(pl.col("date") == DAYS[day - lookback + 1]).then(size).otherwise(1.0)
            moved = evaluate(
                market.with_columns(pl.col(each) * first for each in ("open", "high", "low", "close", "volume")),
                since=day,
                days=day + 1,
            )
            for name in [name for name, value in waiting.items() if value == lookback]:
                if moved[name][day].tobytes() != original[name][day].tobytes():
                    del waiting[name]
        if not waiting:
            return
    raise AssertionError(f"no session depends on the first of its look-back: {waiting}")


def test_a_feature_depends_on_its_declared_inputs_and_on_no_other(market: pl.DataFrame, original: Values) -> None:
    for column in PANEL_COLUMNS:
        factor = pl.Series(np.random.default_rng(4).uniform(0.9, 1.1, market.height))
        changed = bits(evaluate(market.with_columns(pl.col(column) * factor)))
        same = bits(original)
        for each in ALPHA158.features:
            assert (changed[each.name] == same[each.name]) == (column not in each.inputs), (each.name, column)


def test_a_feature_is_as_invariant_to_scale_as_it_declares(market: pl.DataFrame, original: Values) -> None:
    dearer = evaluate(market.with_columns(pl.col("open", "high", "low", "close") * 7.3))
    busier = evaluate(market.with_columns(pl.col("volume") * 1e-4))
    for each in ALPHA158.features:
        # Growths and their logarithms are in single precision.
        tolerance = 1e-4 if each.name.startswith(SINGLE) else 1e-9
        invariant = all(
            np.allclose(found[each.name], original[each.name], rtol=5e-7, atol=tolerance, equal_nan=True)
            for found in (dearer, busier)
        )
        assert invariant == each.scale_invariant, each.name


def test_a_split_changes_no_feature(market: pl.DataFrame) -> None:
    quiet = market.with_columns(split_ratio=1.0, adjustment=1.0)
    later, event = pl.col("date") >= DAYS[200], pl.when(pl.col("date") == DAYS[200]).then(4.0).otherwise(1.0)
    parts = pl.when(later).then(4.0).otherwise(1.0)
    split = quiet.with_columns(
        *(pl.col(column) / parts for column in ("open", "high", "low", "close")),
        volume=pl.col("volume") * parts,
        split_ratio=event,
        adjustment=event,
    ).filter(pl.col("symbol") == "S0")
    assert bits(evaluate(split)) == bits(evaluate(quiet.filter(pl.col("symbol") == "S0")))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 100_000),
    gap_share=st.sampled_from([0.0, 0.3, 0.9]),
    listed=st.integers(0, 80),
    constant=st.booleans(),
    silent=st.booleans(),
    extreme=st.sampled_from([1.0, 1e-8, 1e8, 1e150, 1e-150]),
    absent=st.sampled_from(["open", "high", "low", "close", "volume", None]),
)
@example(seed=0, gap_share=0.0, listed=0, constant=True, silent=True, extreme=1.0, absent=None)
@example(seed=1, gap_share=0.3, listed=0, constant=False, silent=False, extreme=1e150, absent=None)
def test_features_of_ugly_prices_are_finite_or_null_and_the_same_day_by_day(
    seed: int, gap_share: float, listed: int, constant: bool, silent: bool, extreme: float, absent: str | None
) -> None:
    rng = np.random.default_rng(seed)
    days = DAYS[:90]
    prices = random_stock("A", days, seed, gap_share)
    if constant:
        prices = prices.with_columns(pl.lit(13.0).alias(column) for column in ("open", "high", "low", "close"))
    if silent:
        prices = prices.with_columns(volume=0.0)
    print_day = pl.Series(rng.random(prices.height) < 0.05, dtype=pl.Boolean)
    bad_print = pl.when(print_day).then(extreme).otherwise(1.0)
    prices = prices.with_columns(pl.col(column) * bad_print for column in ("open", "high", "low", "close"))
    if absent:
        prices = prices.with_columns(pl.when(print_day).then(None).otherwise(pl.col(absent)).alias(absent))
    prices = prices.filter(pl.col("date") >= days[listed])
    wanted = days[80:]
    found = compute(ALPHA158, prices, wanted, CALENDAR, START, loaded_from=START)
    values = found.select(ALPHA158.names).fill_null(0.0).to_numpy()
    assert np.isfinite(values).all()
    one_by_one = [compute(ALPHA158, prices, [day], CALENDAR, START, loaded_from=START) for day in wanted]
    assert same_bytes(pl.concat(one_by_one), found)


def test_split_adjusted_prices_have_no_feature_that_the_scale_of_volume_moves() -> None:
    # Restated volume knows later splits.
    left = feature_set("alpha158").without_price_level()
    assert all(each.scale_invariant for each in left.features)
    assert set(feature_set("alpha158").names) - set(left.names) == {f"CORR{window}" for window in (5, 10, 20, 30, 60)}
