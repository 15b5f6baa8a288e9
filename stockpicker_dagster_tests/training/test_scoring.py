"""Scores: a day's rows depend on that day and its model alone, and no day is served by a wrong model."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.training.models import TrainedModel, WrongModel, load_model, train_model
from stockpicker_dagster.training.scoring import CONTRIBUTIONS, PREDICTIONS_SCHEMA, MissingModel, score_days
from stockpicker_dagster_tests.research.price_frames import same_bytes
from stockpicker_dagster_tests.training.small_strategy import FEATURES, SCALED, SPLIT, TEST, TESTED


@pytest.fixture
def model(dataset_folder: Path, tmp_path: Path) -> TrainedModel:
    lake = Lake(tmp_path)
    lake.write_bundle("models", "p", train_model("mine", "p", dataset_folder, "linear", {"alpha": 1.0}, 0))
    return load_model(lake.bundle("models", "p"), "mine", FEATURES)


def score(
    days: Sequence[date], models: dict[str, TrainedModel], scaled: pl.DataFrame = SCALED, first: date = TEST[0]
) -> pl.DataFrame:
    return score_days(scaled, days, FEATURES, first, models, lambda day: "p")


def test_the_scores_of_a_day_do_not_depend_on_the_range_or_on_the_order_of_rows(model: TrainedModel) -> None:
    whole = score(TESTED, {"p": model})
    for day in TESTED[::5]:
        alone = score([day], {"p": model}, SCALED.filter(pl.col("date") == day).reverse())
        assert same_bytes(alone.drop("contributions"), whole.filter(pl.col("date") == day).drop("contributions"))
        assert alone["contributions"].to_list() == whole.filter(pl.col("date") == day)["contributions"].to_list()


def test_scores_are_the_models_less_the_days_mean_and_ranks_are_their_order(model: TrainedModel) -> None:
    table = score(TESTED, {"p": model})
    assert dict(table.schema) == PREDICTIONS_SCHEMA
    for (day,), part in table.group_by("date"):
        members = SCALED.filter(pl.col("date") == day).sort("symbol")
        raw = model.algorithm.predict(members.select(FEATURES).to_numpy(), FEATURES)
        expected = members.select("symbol", score=raw - raw.mean()).sort("score", descending=True)
        assert part["symbol"].to_list() == expected["symbol"].to_list()
        np.testing.assert_allclose(part["score"], expected["score"], atol=1e-12)
        assert part["rank"].to_list() == list(range(1, members.height + 1))
    assert set(table["model_id"]) == {model.model_id}


def test_equal_scores_are_ranked_by_symbol(model: TrainedModel) -> None:
    flat = SCALED.with_columns(pl.lit(0.0, pl.Float32).alias(name) for name in FEATURES).reverse()
    symbols = score(TESTED[:1], {"p": model}, flat)["symbol"].to_list()
    assert symbols == sorted(symbols)


def test_the_features_named_are_those_that_moved_the_score_most(model: TrainedModel) -> None:
    row = score(TESTED[:1], {"p": model}).row(0, named=True)
    values = SCALED.filter((pl.col("date") == TESTED[0]) & (pl.col("symbol") == row["symbol"])).select(FEATURES)
    [expected] = model.algorithm.contributions(values.to_numpy(), FEATURES)
    named = {each["feature"]: each["value"] for each in row["contributions"]}
    assert named == pytest.approx(dict(zip(FEATURES, expected, strict=True)), rel=1e-6)
    sizes = [abs(each["value"]) for each in row["contributions"]]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) <= CONTRIBUTIONS


def test_days_before_the_first_model_have_no_rows(model: TrainedModel) -> None:
    before = list(SPLIT.validation[-3:])
    assert score(before, {}).is_empty()
    assert score([*before, *TESTED[:1]], {"p": model})["date"].unique().to_list() == TESTED[:1]
    assert dict(score(before, {}).schema) == PREDICTIONS_SCHEMA


def test_a_served_day_without_its_model_raises_and_no_older_one_is_taken(model: TrainedModel) -> None:
    with pytest.raises(MissingModel, match=f"{TESTED[0]} is served by the model of p, which is not trained; train"):
        score(TESTED, {"older": model})


def test_a_model_that_knows_too_much_may_not_score(model: TrainedModel) -> None:
    late = replace(model, last_known=TESTED[2])
    assert score(TESTED[3:], {"p": late}).height > 0
    with pytest.raises(WrongModel, match=f"knows labels up to {TESTED[2]} and may not score {TESTED[2]}"):
        score(TESTED[2:], {"p": late})
