"""Datasets: no label reaches into a later part, and what is stored reads back with captions and market data."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from stockpicker_dagster.market.prices import PRICES_SCHEMA
from stockpicker_dagster.research.cross_section import scale
from stockpicker_dagster.research.labels import forward_returns, transform
from stockpicker_dagster.research.leaks import LabelLeak, WholeSampleScaling
from stockpicker_dagster.research.splits import LabelOverlap
from stockpicker_dagster.storage.lake import Bundle
from stockpicker_dagster.training.datasets import TABLES, EmptyDataset, read_captions, read_table
from stockpicker_dagster_tests.research.price_frames import no_delistings
from stockpicker_dagster_tests.training.small_strategy import (
    CALENDAR,
    FEATURES,
    PRICES,
    RULE,
    SCALED,
    SESSIONS,
    SPLIT,
    TESTED,
    dataset,
)

Store = Callable[[str, Bundle], Path]


def test_captions_say_what_the_tables_hold(dataset_folder: Path) -> None:
    captions = read_captions(dataset_folder)
    assert captions["features"] == list(FEATURES)
    assert captions["rows"] == {part: read_table(dataset_folder, part).height for part in TABLES}
    for part, sessions in (("train", SPLIT.train), ("validation", SPLIT.validation)):
        table = read_table(dataset_folder, part)
        assert table.columns == ["symbol", "date", *FEATURES, "label", "label_return"]
        assert captions[part] == [str(sessions[0]), str(sessions[-1])]
        assert table["date"].unique().sort().to_list() == list(sessions)
        assert table["label"].null_count() == 0
    assert captions["last_known"] == str(SPLIT.last_known)
    assert captions["market_data"] == list(PRICES_SCHEMA)


def test_market_data_are_the_prices_of_the_days_in_the_tables(dataset_folder: Path) -> None:
    days = {day for part in TABLES for day in read_table(dataset_folder, part)["date"]}
    expected = PRICES.filter(pl.col("date").is_in(sorted(days)))
    assert read_table(dataset_folder, "market_data").equals(expected.sort("date", "symbol"))


def test_features_are_those_of_the_same_stock_and_day(dataset_folder: Path) -> None:
    train = read_table(dataset_folder, "train")
    joined = train.join(SCALED, on=["symbol", "date"], suffix="_given")
    assert joined.height == train.height
    for name in FEATURES:
        assert joined[name].equals(joined[f"{name}_given"].alias(name))


def test_what_happened_after_the_first_use_changes_nothing_that_is_learned_from(store: Store) -> None:
    whole = store("whole", dataset())
    cut = store(
        "cut",
        dataset(
            SCALED.filter(pl.col("date") <= SPLIT.last_known),
            PRICES.filter(pl.col("date") <= SPLIT.last_known),
            tested=[],
        ),
    )
    perturbed = PRICES.with_columns(
        pl.when(pl.col("date") > SPLIT.last_known).then(pl.col("open") * 2).otherwise("open").alias("open")
    )
    moved = store("moved", dataset(prices=perturbed))
    for part in ("train", "validation"):
        stored = {(folder / f"{part}.parquet").read_bytes() for folder in (whole, cut, moved)}
        assert len(stored) == 1
    # The version names what a model learns from, so that a model's id knows nothing of its test days either.
    assert len({read_captions(folder)["data_version"] for folder in (whole, cut, moved)}) == 1
    assert not read_table(whole, "test").equals(read_table(moved, "test"))


def test_test_rows_appear_when_their_labels_are_known(dataset_folder: Path) -> None:
    days = read_table(dataset_folder, "test")["date"].unique().sort().to_list()
    # The label of t is known after the close of t + 1 + 5.
    assert days == TESTED[: -(1 + 5)]


def test_a_label_that_reaches_into_a_later_part_is_refused() -> None:
    after = CALENDAR.sessions(SPLIT.validation[0], SPLIT.last_known)
    unpurged = replace(SPLIT, train=tuple(SESSIONS[: SESSIONS.index(SPLIT.validation[0])]))
    with pytest.raises(LabelOverlap):
        dataset(purged=unpurged)
    with pytest.raises(LabelOverlap):
        dataset(purged=replace(SPLIT, validation=tuple(after)))


def test_an_empty_part_is_refused_naming_it() -> None:
    without = SCALED.filter(~pl.col("date").is_in(list(SPLIT.validation)))
    with pytest.raises(EmptyDataset, match=f"the validation table has no labelled row between {SPLIT.validation[0]}"):
        dataset(without)


def test_equal_inputs_give_equal_files_whatever_the_order_of_their_rows() -> None:
    assert dataset() == dataset(SCALED.reverse(), PRICES.sample(fraction=1.0, shuffle=True, seed=1))


@pytest.mark.parametrize("change", ["feature", "price"])
def test_the_data_version_changes_with_the_data(store: Store, change: str, dataset_folder: Path) -> None:
    bump = (pl.col("date") == date(2023, 2, 1)) & (pl.col("symbol") == "S0")
    scaled = SCALED.with_columns(pl.when(bump).then(9.0).otherwise("one").cast(pl.Float32).alias("one"))
    prices = PRICES.with_columns(pl.when(bump).then(pl.col("open") * 3).otherwise("open").alias("open"))
    other = dataset(scaled) if change == "feature" else dataset(prices=prices)
    assert read_captions(store("other", other))["data_version"] != read_captions(dataset_folder)["data_version"]


def test_planted_leaks_are_refused_by_name() -> None:
    """A label of another session as a feature, a scale over all dates, a label that reaches across the split."""
    following = {day: CALENDAR.next_session(day) for day in SESSIONS}
    before = _labels().with_columns(pl.col("date").replace_strict(following, return_dtype=pl.Date))
    leaking = (
        SCALED.drop("one").join(before, on=["symbol", "date"], how="left").with_columns(pl.col("one").fill_null(0.0))
    )
    with pytest.raises(LabelLeak, match="label leak: feature 'one' is the label of 1 session before"):
        dataset(leaking)
    assert "train.parquet" in dataset(scale(SCALED, FEATURES), scaling="standard").files
    drifting = SCALED.with_columns(pl.col("one") + pl.col("date").rank("dense").cast(pl.Float32) / 50)
    over_all = drifting.with_columns((pl.col("one") - pl.col("one").mean()) / pl.col("one").std())
    with pytest.raises(WholeSampleScaling, match="whole-sample scaling: feature 'one'"):
        dataset(over_all.with_columns(scale(SCALED, FEATURES)["two"]), scaling="standard")
    unpurged = replace(SPLIT, train=tuple(SESSIONS[: SESSIONS.index(SPLIT.validation[0])]))
    with pytest.raises(LabelOverlap, match="label overlap: 6 training sessions"):
        dataset(purged=unpurged)


def _labels() -> pl.DataFrame:
    """What is learned on each day, under the name of a feature."""
    returns = forward_returns(PRICES, no_delistings(), CALENDAR, RULE.horizon_days)
    labels = transform(returns, SCALED.select("symbol", "date"), "rank")
    return labels.select("symbol", "date", one=pl.col("label").cast(pl.Float32))
