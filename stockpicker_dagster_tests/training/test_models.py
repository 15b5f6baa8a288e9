"""Models: equal inputs give equal ids and bytes, and a model is used only where it belongs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.lake import Bundle
from stockpicker_dagster.training import models
from stockpicker_dagster.training.datasets import read_captions, read_table
from stockpicker_dagster.training.models import (
    WrongModel,
    describe_model,
    describe_stored_model,
    load_model,
    train_model,
)
from stockpicker_dagster.training.search import STATE, SearchSettings
from stockpicker_dagster_tests.training.small_strategy import FEATURES, SPLIT, dataset

Store = Callable[[str, Bundle], Path]
ARGUMENTS: dict[str, Any] = {
    "strategy": "mine",
    "period": "2023-06-01",
    "name": "linear",
    "hyperparameters": {"alpha": 1.0},
    "seed": 0,
}


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
