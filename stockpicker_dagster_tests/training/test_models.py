"""Models: equal inputs give equal ids and bytes, and a model is used only where it belongs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms import known_algorithms
from stockpicker_dagster.storage.lake import Bundle
from stockpicker_dagster.training import models
from stockpicker_dagster.training.datasets import read_captions, read_table
from stockpicker_dagster.training.models import (
    EarlierModel,
    WrongModel,
    describe_model,
    describe_stored_model,
    load_model,
    train_model,
)
from stockpicker_dagster.training.scoring import score_days
from stockpicker_dagster.training.search import STATE, SearchSettings
from stockpicker_dagster_tests.training.small_strategy import (
    FEATURES,
    PRICES,
    SCALED,
    SPLIT,
    TEST,
    TESTED,
    dataset,
)

Store = Callable[[str, Bundle], Path]
ARGUMENTS: dict[str, Any] = {
    "strategy": "mine",
    "period": "2023-06-01",
    "name": "linear",
    "hyperparameters": {"alpha": 1.0},
    "seed": 0,
}
QUICK: dict[str, dict[str, Any]] = {
    "linear": {},
    "boosted_trees": {"trees": 10, "rows_in_leaf": 5},
    "neural_network": {"ensemble": 1, "epochs": 2, "hidden_layers": 1},
    "deep_reinforcement_learning": {"steps": 128, "walks": 2},
}
"""Settings with which each algorithm trains in no time."""


def test_equal_inputs_give_the_same_id_and_the_same_bytes(dataset_folder: Path) -> None:
    assert train_model(dataset=dataset_folder, **ARGUMENTS) == train_model(dataset=dataset_folder, **ARGUMENTS)


@pytest.mark.parametrize(
    "change", [{"strategy": "other"}, {"period": "2023-07-01"}, {"hyperparameters": {"alpha": 2.0}}, {"seed": 1}]
)
def test_the_id_changes_with_strategy_period_and_settings(dataset_folder: Path, change: dict[str, Any]) -> None:
    first = describe_model(train_model(dataset=dataset_folder, **ARGUMENTS))
    other = describe_model(train_model(dataset=dataset_folder, **{**ARGUMENTS, **change}))
    assert first["model_id"] != other["model_id"]


def test_the_id_changes_with_data_and_code(dataset_folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    shorter = store("shorter", dataset(purged=replace(SPLIT, train=SPLIT.train[5:])))
    first = describe_model(train_model(dataset=dataset_folder, **ARGUMENTS))["model_id"]
    data = describe_model(train_model(dataset=shorter, **ARGUMENTS))["model_id"]
    monkeypatch.setattr(models, "code_version", lambda: "another")
    code = describe_model(train_model(dataset=dataset_folder, **ARGUMENTS))["model_id"]
    assert len({first, data, code}) == 3


def test_a_model_that_was_stored_scores_linearly_in_its_features(dataset_folder: Path, store: Store) -> None:
    folder = store("model", train_model(dataset=dataset_folder, **ARGUMENTS))
    loaded = load_model(folder, "mine", FEATURES)
    assert loaded.last_known == SPLIT.last_known
    assert loaded.model_id == describe_stored_model(folder)["model_id"]
    assert describe_stored_model(folder)["data_version"] == read_captions(dataset_folder)["data_version"]
    values = read_table(dataset_folder, "validation").select(FEATURES).to_numpy()
    scores = loaded.algorithm.predict(values, FEATURES)
    # Whatever the penalty, a linear model is affine: scores of sums are sums of scores.
    slopes, *_ = np.linalg.lstsq(np.column_stack([values, np.ones(len(values))]), scores, rcond=None)
    np.testing.assert_allclose(values @ slopes[:2] + slopes[2], scores, atol=1e-6)
    assert np.abs(slopes[:2]).max() > 0


def test_a_model_of_another_strategy_or_of_other_features_is_refused(dataset_folder: Path, store: Store) -> None:
    folder = store("model", train_model(dataset=dataset_folder, **ARGUMENTS))
    with pytest.raises(WrongModel, match="belongs to strategy 'mine', not to 'other'; train 'other' for period 2023"):
        load_model(folder, "other", FEATURES)
    with pytest.raises(WrongModel, match=r"'mine' changed since the model of 2023-06-01 was trained: \['three'\]"):
        load_model(folder, "mine", [*FEATURES, "three"])
    with pytest.raises(WrongModel, match="their order"):
        load_model(folder, "mine", FEATURES[::-1])


def test_a_model_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"model\.json cannot be read .*train it again"):
        load_model(tmp_path, "mine", FEATURES)
    (tmp_path / models.MODEL).write_text("{")
    with pytest.raises(InvalidInput, match=r"model\.json cannot be read .*train it again"):
        load_model(tmp_path, "mine", FEATURES)


def test_a_figure_that_does_not_exist_is_null_in_the_description(dataset_folder: Path) -> None:
    content = train_model(dataset=dataset_folder, **ARGUMENTS).files[models.MODEL]
    assert isinstance(content, bytes)
    assert "NaN" not in content.decode()
    assert json.loads(content)["metrics"]["validation_rank_ic"] is not None


@pytest.mark.parametrize("name", known_algorithms())
def test_later_days_change_no_model_and_no_earlier_score(name: str, store: Store) -> None:
    """Everything after the first use is cut off, and changed: the model and the scores of days before are the same."""
    evening = TESTED[5]
    later = pl.col("date") > evening
    bundles, scores = [], []
    for prices, scaled, tested in (
        (PRICES, SCALED, TESTED),
        (PRICES.filter(~later), SCALED.filter(~later), TESTED[:6]),
        (
            PRICES.with_columns(pl.when(later).then(pl.col("open") * 3).otherwise("open").alias("open")),
            SCALED.with_columns(pl.when(later).then(-5.0).otherwise("one").cast(pl.Float32).alias("one")),
            TESTED,
        ),
    ):
        made = store(f"dataset {len(bundles)}", dataset(scaled, prices, tested=tested))
        bundles.append(train_model("mine", "p", made, name, QUICK[name], 0))
        model = load_model(store(f"model {len(bundles)}", bundles[-1]), "mine", FEATURES)
        served = score_days(scaled, tested, FEATURES, TEST[0], {"p": model}, lambda day: "p")
        scores.append(served.filter(~later))
    assert bundles[0] == bundles[1] == bundles[2]
    assert scores[0].height > 60
    assert scores[0].equals(scores[1])
    assert scores[0].equals(scores[2])


@pytest.mark.parametrize("name", ["neural_network", "deep_reinforcement_learning"])
def test_a_warm_start_begins_from_the_named_model_and_changes_the_identity(
    name: str, dataset_folder: Path, store: Store
) -> None:
    cold = train_model("mine", "2023-05-01", dataset_folder, name, QUICK[name], 0)
    earlier = EarlierModel(store("earlier", cold), describe_model(cold)["model_id"])
    slow = {**QUICK[name], "learning_rate": 1e-6}
    warm = train_model("mine", "2023-06-01", dataset_folder, name, slow, 0, start_from=earlier)
    assert warm == train_model("mine", "2023-06-01", dataset_folder, name, slow, 0, start_from=earlier)
    assert describe_model(warm)["start_from"] == earlier.model_id
    other = describe_model(train_model("mine", "2023-06-01", dataset_folder, name, slow, 0))
    assert other["model_id"] != describe_model(warm)["model_id"]
    values = read_table(dataset_folder, "validation").select(FEATURES).to_numpy()
    models = [load_model(store(which, each), "mine", FEATURES) for which, each in (("a", cold), ("b", warm))]
    near, own = (model.algorithm.predict(values, FEATURES) for model in models)
    assert np.corrcoef(near, own)[0, 1] > 0.99


def test_a_model_that_it_cannot_begin_from_is_refused(dataset_folder: Path, store: Store) -> None:
    cold = train_model("mine", "2023-05-01", dataset_folder, "neural_network", QUICK["neural_network"], 0)
    folder = store("earlier", cold)
    earlier = EarlierModel(folder, describe_model(cold)["model_id"])
    arguments = ("2023-06-01", dataset_folder, "neural_network", QUICK["neural_network"], 0)
    with pytest.raises(WrongModel, match="'linear' does not start from an earlier model"):
        train_model("mine", "2023-06-01", dataset_folder, "linear", {}, 0, start_from=earlier)
    with pytest.raises(WrongModel, match="and another of 'neural_network' is asked for"):
        train_model("mine", *arguments, start_from=EarlierModel(folder, "another"))
    with pytest.raises(WrongModel, match="belongs to strategy 'mine', not to 'other'"):
        train_model("other", *arguments, start_from=earlier)
    described = json.loads((folder / models.MODEL).read_text())
    (folder / models.MODEL).write_text(json.dumps({**described, "last_known": "2030-01-02"}))
    with pytest.raises(WrongModel, match="has learned what was known by 2030-01-02"):
        train_model("mine", *arguments, start_from=earlier)


def test_a_search_is_fitted_as_if_its_best_settings_had_been_given(dataset_folder: Path) -> None:
    searched = SearchSettings(3, {"alpha": [0.01, 100.0]})
    model = train_model(dataset=dataset_folder, **{**ARGUMENTS, "hyperparameters": {}}, search=searched)
    content = model.files[STATE]
    assert isinstance(content, bytes)
    trials = json.loads(content)
    assert len(trials) == 3
    best = max(trials, key=lambda each: each["rank_ic"])
    described = describe_model(model)
    assert described["chosen"]["alpha"] == best["hyperparameters"]["alpha"]
    assert described["search"]["trials"] == 3
    assert described["model_id"] != describe_model(train_model(dataset=dataset_folder, **ARGUMENTS))["model_id"]
    assert SearchSettings.of_text(searched.as_text()) == searched
    assert SearchSettings.of_text("") is None
    with pytest.raises(InvalidInput, match="cannot be read"):
        SearchSettings.of_text('{"trial": 1}')
