"""Planted leaks are refused by name, and nothing that is honest is."""

from datetime import date
from itertools import product
from typing import get_args

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.research.cross_section import Imputation, Method, scale
from stockpicker_dagster.research.labels import forward_returns, transform
from stockpicker_dagster.research.leaks import (
    LabelLeak,
    WholeSampleScaling,
    assert_no_label_leak,
    assert_scaled_by_date,
)
from stockpicker_dagster_tests.research.price_frames import CALENDAR, no_delistings, random_market, sessions

DAYS = sessions(date(2018, 1, 2), date(2018, 6, 29))
PRICES = random_market(DAYS, 25, seed=3)
METHODS = get_args(Method)


def labelled(horizon: int) -> pl.DataFrame:
    """Labels of every day on which they are known, beside a feature of noise."""
    labels = transform(forward_returns(PRICES, no_delistings(), CALENDAR, horizon), PRICES.select("symbol", "date"))
    known = labels.filter(pl.col("label").is_not_null())
    return known.with_columns(noise=pl.Series(np.random.default_rng(1).normal(size=known.height)))


def shifted(table: pl.DataFrame, by: int) -> pl.DataFrame:
    """A feature `late` that is the label so many sessions later; rows that have none are left out."""
    days = table["date"].unique().sort().to_list()
    moved = {day: days[place - by] for place, day in enumerate(days) if 0 <= place - by < len(days)}
    theirs = table.filter(pl.col("date").is_in(list(moved))).select(
        "symbol", pl.col("date").replace_strict(moved, return_dtype=pl.Date), late="label"
    )
    return table.join(theirs, on=["symbol", "date"])


@pytest.mark.parametrize(
    ("horizon", "by", "words"),
    [
        (5, 0, "of its own day .* only 6 sessions after the day"),
        (5, 1, "of 1 session later .* only 7 sessions"),
        (5, -1, "of 1 session before .* only 5 sessions"),
        (5, -4, "of 4 sessions before .* only 2 sessions"),
        (1, -1, "of 1 session before .* only 1 sessions"),
    ],
)
def test_a_label_that_nobody_knows_yet_is_no_feature(horizon: int, by: int, words: str) -> None:
    table = shifted(labelled(horizon), by)
    for disguised in (pl.col("late"), -pl.col("late"), pl.col("late").exp() * 3):
        leaking = table.with_columns(clever=disguised.cast(pl.Float32))
        with pytest.raises(LabelLeak, match=f"label leak: feature 'clever' is the label {words}"):
            assert_no_label_leak(leaking, ["noise", "clever"], "label", horizon)


@pytest.mark.parametrize("horizon", [1, 2, 5, 21])
def test_returns_that_are_known_are_no_leak(horizon: int) -> None:
    """What a stock did up to the close of the day overlaps with labels that are not known, and may."""
    close = (pl.col("close") * pl.col("adjustment").cum_prod()).over("symbol")
    rows = PRICES.sort("symbol", "date").with_columns(value=close)
    past = {f"past_{back}": pl.col("value") / pl.col("value").shift(back).over("symbol") - 1 for back in (1, 4, 5, 20)}
    known = rows.with_columns(**past, intraday=pl.col("close") / pl.col("open") - 1).select(
        "symbol", "date", *past, "intraday"
    )
    table = labelled(horizon).join(known, on=["symbol", "date"]).fill_null(0.0)
    assert_no_label_leak(table, ["noise", *past, "intraday"], "label", horizon)


def test_too_few_rows_say_nothing() -> None:
    table = labelled(5).with_columns(clever="label").filter(pl.col("symbol").is_in(["S0", "S1"]))
    assert_no_label_leak(table.head(20), ["clever"], "label", 5)


def raw(seed: int = 5) -> pl.DataFrame:
    """Features whose level drifts, with gaps and ties: `level`, `sparse`, `tied`, which is often its least value, and
    `still`, which never moves."""
    rng = np.random.default_rng(seed)
    rows = PRICES.select("symbol", "date").sort("date", "symbol")
    drift = rows["date"].rank("dense").to_numpy() / 20
    level = rng.gamma(2.0, size=rows.height) + drift
    sparse = np.where(rng.random(rows.height) < 0.4, np.nan, rng.normal(size=rows.height) * (1 + drift) - drift)
    tied = np.where(rng.random(rows.height) < 0.15, np.nan, np.maximum(rng.normal(size=rows.height), -0.3) + drift)
    made = {"level": level, "sparse": sparse, "tied": tied, "still": np.ones(rows.height)}
    return rows.with_columns(pl.Series(name, values, nan_to_null=True) for name, values in made.items())


NAMES = ["level", "sparse", "tied", "still"]


@pytest.mark.parametrize(("method", "imputation"), list(product(METHODS, get_args(Imputation))))
def test_what_is_scaled_by_date_passes(method: Method, imputation: Imputation) -> None:
    for winsorize in (None, (0.05, 0.95)):
        assert_scaled_by_date(scale(raw(), NAMES, method, imputation, winsorize), NAMES, method)


@pytest.mark.parametrize("method", METHODS)
def test_scaling_over_the_whole_sample_is_refused(method: Method) -> None:
    """All rows scaled as if they were one date, and put back on their dates."""
    frame = raw()
    one_day = frame.with_columns(date=pl.lit(DAYS[0]), symbol=pl.int_range(pl.len()).cast(pl.String).str.zfill(8))
    over_all = scale(one_day, NAMES, method).with_columns(frame["symbol"], frame["date"])
    with pytest.raises(
        WholeSampleScaling, match=f"whole-sample scaling: feature 'level'.*{method} scale.*over that date"
    ):
        assert_scaled_by_date(over_all, NAMES, method)
    # Of a median alone it cannot be said whether rows in the middle were imputed.
    if method != "robust":
        with pytest.raises(WholeSampleScaling, match="'sparse'"):
            assert_scaled_by_date(over_all, ["sparse"], method)


@pytest.mark.parametrize("method", ["standard", "minmax", "rank"])
def test_another_method_is_no_scale_of_this_one(method: Method) -> None:
    """But of `robust`, which is known by its median alone."""
    for other in METHODS:
        if other != method:
            with pytest.raises(WholeSampleScaling):
                assert_scaled_by_date(scale(raw(), ["level"], other), ["level"], method)
