"""Models that XGBoost itself wrote score as XGBoost scores them, and files that are none are refused unexecuted."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms.xgboost_model import XGBoostModel

ROWS, FEATURES = 400, 6


@pytest.fixture(scope="module")
def table() -> tuple[np.ndarray, np.ndarray]:
    """Values with some missing, and a label that follows from two of them."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    label = 0.3 * values[:, 0] + np.sign(values[:, 1]) + 0.1 * rng.normal(size=ROWS)
    values[rng.random(values.shape) < 0.05] = np.nan
    return values, label


def trained(table: tuple[np.ndarray, np.ndarray], rounds: int = 8, **settings: Any) -> Any:
    import xgboost

    values, label = table
    chosen = {"max_depth": 4, "eta": 0.3, "nthread": 1, "objective": "reg:squarederror", **settings}
    return xgboost.train(chosen, xgboost.DMatrix(values, label=label), rounds)


def scores(booster: Any, values: np.ndarray) -> np.ndarray:
    import xgboost

    return np.asarray(booster.predict(xgboost.DMatrix(values)))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"objective": "reg:absoluteerror", "subsample": 0.7},
        {"objective": "reg:pseudohubererror", "tree_method": "exact"},
        {"num_parallel_tree": 3, "lambda": 5.0},
        {"grow_policy": "lossguide", "max_leaves": 9, "max_depth": 0},
    ],
)
def test_scores_are_those_of_xgboost(table: tuple[np.ndarray, np.ndarray], settings: dict[str, Any]) -> None:
    booster = trained(table, **settings)
    expected = scores(booster, table[0])
    for kind in ("ubj", "json"):
        found = XGBoostModel(bytes(booster.save_raw(kind))).predict(table[0])
        assert np.abs(found - expected).max() <= 1e-6
        assert np.std(found) > 0.1


def test_a_value_on_a_threshold_and_a_missing_one_go_where_xgboost_sends_them(
    table: tuple[np.ndarray, np.ndarray],
) -> None:
    booster = trained(table, rounds=3)
    document = json.loads(booster.save_raw("json"))
    [tree, *_] = document["learner"]["gradient_booster"]["model"]["trees"]
    on_it = np.full((1, FEATURES), np.nan, np.float32)
    on_it[0, tree["split_indices"][0]] = tree["split_conditions"][0]
    for values in (on_it, np.full((1, FEATURES), np.nan, np.float32)):
        assert XGBoostModel(bytes(booster.save_raw("ubj"))).predict(values) == pytest.approx(scores(booster, values))


def test_after_an_early_stop_the_rounds_up_to_the_best_one_count(table: tuple[np.ndarray, np.ndarray]) -> None:
    import xgboost

    values, label = table
    given, noise = xgboost.DMatrix(values, label=label), np.random.default_rng(1).permutation(label)
    held_out = xgboost.DMatrix(values, label=noise)
    settings = {"nthread": 1, "objective": "reg:squarederror"}
    booster = xgboost.train(settings, given, 30, evals=[(held_out, "v")], early_stopping_rounds=3, verbose_eval=False)
    assert booster.num_boosted_rounds() > booster.best_iteration + 1
    expected = booster.predict(given, iteration_range=(0, booster.best_iteration + 1))
    assert np.abs(XGBoostModel(bytes(booster.save_raw("ubj"))).predict(values) - expected).max() <= 1e-6


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"booster": "gblinear", "max_depth": None}, "booster is 'gblinear'; allowed: 'gbtree'"),
        ({"booster": "dart"}, "booster is 'dart'"),
        ({"objective": "reg:gamma"}, "objective is 'reg:gamma'; allowed: 'reg:squarederror'"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_models_of_another_kind_are_refused_by_name(settings: dict[str, Any], said: str) -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(50, 2)).astype(np.float32), rng.uniform(1, 2, 50)
    chosen = {name: value for name, value in settings.items() if value is not None}
    with pytest.raises(InvalidInput, match=said):
        XGBoostModel(bytes(trained(table, 2, **chosen).save_raw("ubj")))


def test_another_number_of_features_is_refused(table: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(InvalidInput, match=r"shape \(2, 3\); the model has 6 features"):
        XGBoostModel(bytes(trained(table, 1).save_raw("ubj"))).predict(np.zeros((2, 3), np.float32))


class Bomb:
    """A pickle of it makes a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.folder,)


def test_what_would_execute_is_refused(tmp_path: Path) -> None:
    """Old containers of XGBoost's left pickles."""
    with pytest.raises(InvalidInput, match="no model of XGBoost's that can be read"):
        XGBoostModel(pickle.dumps(Bomb(tmp_path / "executed")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"{}",
        b'{"learner": 1}',
        b"{" * 10_000,
        b'{"a":' * 100_000,
        b"{U\x01a[$U#L\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"{U\x01a[#L\x00\x00\x00\xff\xff\xff\xff\xffZ",
        b"{U\x01a[$Z#L\x00\x00\x00\xff\xff\xff\xff\xff",
        b"{U\x01a" + b"[" * 100_000,
        b"{L\xff\xff\xff\xff\xff\xff\xff\xff",
    ],
)
def test_no_file_costs_memory_or_time_that_it_does_not_have(content: bytes) -> None:
    with pytest.raises(InvalidInput, match="no model of XGBoost's that can be read"):
        XGBoostModel(content)


def test_a_damaged_model_is_refused_or_read_and_never_walks_for_ever(table: tuple[np.ndarray, np.ndarray]) -> None:
    whole = bytes(trained(table, 2).save_raw("ubj"))
    rng, refused = np.random.default_rng(5), 0
    for _ in range(300):
        broken = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            broken[place] = rng.integers(0, 256)
        try:
            with np.errstate(all="ignore"):
                XGBoostModel(bytes(broken)).predict(table[0][:5])
        except InvalidInput:
            refused += 1
    assert refused > 50


def test_a_tree_that_would_go_round_in_circles_is_refused(table: tuple[np.ndarray, np.ndarray]) -> None:
    document = json.loads(trained(table, 1).save_raw("json"))
    document["learner"]["gradient_booster"]["model"]["trees"][0]["left_children"][1] = 0
    with pytest.raises(InvalidInput, match="no such child"):
        XGBoostModel(json.dumps(document).encode())
