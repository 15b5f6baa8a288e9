from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA
from stockpicker_dagster.research.labels import forward_returns, transform
from stockpicker_dagster_tests.research.price_frames import (
    CALENDAR,
    START,
    no_delistings,
    prices_from,
    random_market,
    same_bytes,
    sessions,
)

DAYS = sessions(START, date(2018, 6, 29))
MARKET = random_market(DAYS, 6, seed=11)


def delisting(symbol: str, last_session: date, known_at: date, value: float | None) -> pl.DataFrame:
    row = {"symbol": symbol, "date": known_at, "last_session": last_session, "reason": "bankrupt", "return": value}
    return pl.DataFrame([row | {"known_at": known_at}], schema=DELISTINGS_SCHEMA)


DELISTED = delisting("S2", MARKET.filter(pl.col("symbol") == "S2")["date"].max(), DAYS[86], -0.4)  # type: ignore[arg-type]


def wealth_oracle(prices: pl.DataFrame, symbol: str, day: date, horizon: int) -> float | None:
    """Buy one share at the open of t + 1, take splits and reinvest dividends in the books, sell at the open of t+1+h.

    Reinvesting at the price that the adjustment is defined by (the previous close less the dividend) is what
    `adjustment` means, so the number of shares is multiplied by it on each ex-date.
    """
    rows = {row["date"]: row for row in prices.filter(pl.col("symbol") == symbol).iter_rows(named=True)}
    entry = rows.get(CALENDAR.offset(day, 1))
    if entry is None:
        return None
    shares, value = 1.0, entry["close"]
    for ahead in range(2, horizon + 2):
        row = rows.get(CALENDAR.offset(day, ahead))
        if row:
            shares *= row["adjustment"]
            value = shares * (row["open"] if ahead == horizon + 1 else row["close"])
    return value / entry["open"] - 1


@pytest.mark.parametrize("horizon", [1, 5, 21])
def test_the_label_is_the_wealth_of_a_share_held_from_open_to_open(horizon: int) -> None:
    found = forward_returns(MARKET, no_delistings(), CALENDAR, horizon)
    assert found["label_return"].null_count() > 0
    for symbol, day, value, known_on in found.iter_rows():
        expected = wealth_oracle(MARKET, symbol, day, horizon)
        assert known_on == CALENDAR.offset(day, horizon + 1)
        assert (value is None) == (expected is None)
        if value is not None:
            assert value == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_rows_are_the_price_rows_whose_label_is_known_by_the_last_session() -> None:
    found = forward_returns(MARKET, no_delistings(), CALENDAR, 5)
    assert found.select("symbol", "date").equals(MARKET.filter(pl.col("date") <= DAYS[-7]).select("symbol", "date"))
    assert found["known_on"].max() == DAYS[-1]


def one_stock(opens: list[float | None], closes: list[float | None], **events: np.ndarray) -> pl.DataFrame:
    close = np.array([np.nan if value is None else value for value in closes])
    prices = prices_from("A", DAYS[: len(closes)], close, **events)  # type: ignore[arg-type]
    return prices.with_columns(open=pl.Series(opens, dtype=pl.Float64), close=pl.Series(closes, dtype=pl.Float64))


def label_of(
    prices: pl.DataFrame, horizon: int, delistings: pl.DataFrame | None = None, **given: object
) -> float | None:
    gone = no_delistings() if delistings is None else delistings
    through = DAYS[horizon + 1]
    found = forward_returns(prices, gone, CALENDAR, horizon, through=through, **given)  # type: ignore[arg-type]
    return found.filter(pl.col("date") == DAYS[0])["label_return"].item()


def test_a_split_on_the_day_of_exit_is_in_the_label_and_one_on_the_day_of_entry_is_not() -> None:
    opens, closes = [10.0, 20.0, 8.0], [10.0, 20.0, 8.0]
    at_exit = one_stock(opens, closes, adjustment=np.array([1.0, 1.0, 3.0]))
    at_entry = one_stock(opens, closes, adjustment=np.array([1.0, 3.0, 1.0]))
    assert label_of(at_exit, 1) == pytest.approx(24 / 20 - 1)
    assert label_of(at_entry, 1) == pytest.approx(8 / 20 - 1)


def test_without_an_open_on_the_next_session_nobody_can_trade() -> None:
    assert label_of(one_stock([10.0, None, 12.0], [10.0, 11.0, 12.0]), 1) is None
    absent = one_stock([10.0, 11.0, 12.0], [10.0, 11.0, 12.0]).filter(pl.col("date") != DAYS[1])
    assert label_of(absent, 1) is None


def test_without_an_open_at_the_exit_the_last_close_stands_in() -> None:
    assert label_of(one_stock([10.0, 10.0, 12.0, None], [10.0, 11.0, 12.5, 13.0]), 2) == pytest.approx(0.3)
    halted = one_stock([10.0, 10.0, 12.0, 15.0], [10.0, 11.0, 12.5, 15.0]).filter(pl.col("date") != DAYS[3])
    assert label_of(halted, 2) == pytest.approx(0.25)
    gone_at_once = halted.filter(pl.col("date") <= DAYS[1])
    assert label_of(gone_at_once, 2) == pytest.approx(0.1)
    no_close_either = one_stock([10.0, 10.0], [10.0, None])
    assert label_of(no_close_either, 2) == 0.0


@pytest.mark.parametrize(("known", "expected"), [(2, 1.25 * 0.6), (5, 1.25 * 0.6), (6, 1.25)])
def test_a_delisting_adds_its_return_if_it_is_known_by_the_exit(known: int, expected: float) -> None:
    prices = one_stock([10.0, 10.0, 12.0], [10.0, 11.0, 12.5])
    gone = delisting("A", DAYS[2], DAYS[known], -0.4)
    assert label_of(prices, 4, gone) == pytest.approx(expected - 1)


def test_an_unknown_delisting_return_is_as_the_caller_says() -> None:
    prices = one_stock([10.0, 10.0, 12.0], [10.0, 11.0, 12.5])
    gone = delisting("A", DAYS[2], DAYS[3], None)
    assert label_of(prices, 4, gone) == pytest.approx(0.25)
    assert label_of(prices, 4, gone, missing_delisting_return=-0.3) == pytest.approx(1.25 * 0.7 - 1)


def test_a_delisting_of_another_or_an_earlier_stock_of_that_symbol_does_not_count() -> None:
    prices = one_stock([10.0, 10.0, 12.0], [10.0, 11.0, 12.5])
    assert label_of(prices, 4, delisting("B", DAYS[2], DAYS[3], -0.4)) == pytest.approx(0.25)
    assert label_of(prices, 4, delisting("A", DAYS[0], DAYS[1], -0.4)) == pytest.approx(0.25)


def test_a_delisting_does_not_touch_a_stock_that_still_trades_at_the_exit() -> None:
    prices = one_stock([10.0, 10.0, 12.0], [10.0, 11.0, 12.5])
    assert label_of(prices, 1, delisting("A", DAYS[2], DAYS[2], -0.4)) == pytest.approx(0.2)


@pytest.mark.parametrize("horizon", [1, 5])
@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, len(DAYS) - 1))
def test_labels_ignore_what_comes_after_they_are_known(horizon: int, cut: int) -> None:
    whole = forward_returns(MARKET, DELISTED, CALENDAR, horizon)
    known = whole.filter(pl.col("known_on") <= DAYS[cut])
    truncated = forward_returns(
        MARKET.filter(pl.col("date") <= DAYS[cut]),
        DELISTED.filter(pl.col("known_at") <= DAYS[cut]),
        CALENDAR,
        horizon,
        through=DAYS[cut],
    )
    future = pl.when(pl.col("date") > DAYS[cut]).then(2.0).otherwise(1.0)
    changed = MARKET.with_columns(pl.col(column) * future for column in ("open", "close", "adjustment"))
    perturbed = forward_returns(changed, DELISTED, CALENDAR, horizon).filter(pl.col("known_on") <= DAYS[cut])
    assert same_bytes(truncated, known)
    assert same_bytes(perturbed, known)


def test_earlier_days_and_other_symbols_change_no_label() -> None:
    whole = forward_returns(MARKET, DELISTED, CALENDAR, 5)
    part = forward_returns(
        MARKET.filter((pl.col("date") >= DAYS[40]) & (pl.col("symbol") != "S0")), DELISTED, CALENDAR, 5
    )
    assert same_bytes(part, whole.filter((pl.col("date") >= DAYS[40]) & (pl.col("symbol") != "S0")))


def test_a_horizon_below_one_and_a_repeated_row_are_refused() -> None:
    with pytest.raises(InvalidInput, match="horizon_days 0"):
        forward_returns(MARKET, no_delistings(), CALENDAR, 0)
    with pytest.raises(InvalidInput, match="more than one row"):
        forward_returns(pl.concat([MARKET, MARKET.head(1)]), no_delistings(), CALENDAR, 1)


def test_no_prices_give_no_labels() -> None:
    assert forward_returns(MARKET.clear(), no_delistings(), CALENDAR, 5).is_empty()


# Against the universe -------------------------------------------------------------------------------------------------

RETURNS = forward_returns(MARKET, DELISTED, CALENDAR, 5)
MEMBERS = RETURNS.select("symbol", "date").filter(pl.col("symbol") != "S5")


def test_the_label_is_the_return_less_the_mean_of_the_members_of_the_day() -> None:
    found = transform(RETURNS, MEMBERS, "none")
    assert "S5" not in found["symbol"].unique().to_list()
    reference = found.with_columns(
        expected=pl.col("label_return") - pl.col("label_return").mean().over("date")
    ).drop_nulls("label_return")
    np.testing.assert_allclose(reference["label"], reference["expected"], atol=1e-14)
    assert found.filter(pl.col("label_return").is_null())["label"].is_null().all()


def test_ranks_run_from_minus_a_half_to_a_half_and_standard_scores_have_unit_deviation() -> None:
    ranked = transform(RETURNS, MEMBERS, "rank").drop_nulls("label")
    daily = ranked.group_by("date").agg(
        low=pl.col("label").min(), high=pl.col("label").max(), mean=pl.col("label").mean(), count=pl.len()
    )
    assert (daily["low"] == -0.5).all()
    assert (daily["high"] == 0.5).all()
    assert daily["mean"].abs().max() < 1e-12
    standard = transform(RETURNS, MEMBERS, "standard").drop_nulls("label")
    spread = standard.group_by("date").agg(pl.col("label").std(ddof=0))["label"]
    np.testing.assert_allclose(spread, 1.0, rtol=1e-9)
    assert ranked.select(pl.corr("label", standard["label"], method="spearman")).item() > 0.9


def test_winsorizing_limits_the_excess_return() -> None:
    found = transform(RETURNS, MEMBERS, "none", winsorize=(0.2, 0.8)).drop_nulls("label")
    free = transform(RETURNS, MEMBERS, "none").drop_nulls("label")
    for date_of, labels in free.group_by("date", maintain_order=True):
        expected = np.clip(labels["label"], *np.quantile(labels["label"], [0.2, 0.8]))
        limited = found.filter(pl.col("date") == date_of[0])["label"]
        np.testing.assert_allclose(limited, expected, atol=1e-14)


def test_leaving_the_universe_later_removes_no_label() -> None:
    day = DAYS[30]
    before_leaving = MEMBERS.filter((pl.col("symbol") != "S0") | (pl.col("date") <= day))
    found = transform(RETURNS, before_leaving).filter(pl.col("date") == day)
    assert same_bytes(found, transform(RETURNS, MEMBERS).filter(pl.col("date") == day))
    assert "S0" in found["symbol"].to_list()


@pytest.mark.parametrize("method", ["rank", "standard", "none"])
def test_a_days_labels_depend_on_that_day_alone(method: str) -> None:
    whole = transform(RETURNS, MEMBERS, method, winsorize=(0.1, 0.9))  # type: ignore[arg-type]
    for day in DAYS[20:40]:
        alone = transform(RETURNS.filter(pl.col("date") == day), MEMBERS, method, winsorize=(0.1, 0.9))  # type: ignore[arg-type]
        assert same_bytes(alone, whole.filter(pl.col("date") == day))


def test_wrong_transforms_are_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="'ranks' is unknown; known: rank, standard, none"):
        transform(RETURNS, MEMBERS, "ranks")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="winsorize"):
        transform(RETURNS, MEMBERS, "rank", winsorize=(0.5, 0.5))
