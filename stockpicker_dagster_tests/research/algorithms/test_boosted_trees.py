import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms import Progress, Supervision, TrainingStopped
from stockpicker_dagster.research.algorithms.boosted_trees import ARTIFACT, BoostedTrees, Trees
from stockpicker_dagster.research.algorithms.linear import LinearModel
from stockpicker_dagster_tests.research.algorithms.planted import FEATURES, matrix, share_of_achievable, table

QUICK = {"trees": 40, "rows_in_leaf": 20, "patience": "none"}


def fit(settings: dict[str, object] | None = None, shape: str = "product", seed: int = 0) -> BoostedTrees:
    train, validation = table(1, shape=shape), table(2, 20, shape=shape, first=2020)
    return BoostedTrees.fit(train, validation, FEATURES, "label", QUICK if settings is None else settings, seed)


@pytest.fixture(scope="module")
def fitted() -> BoostedTrees:
    return fit()


def test_scores_are_scikit_learns_to_the_last_bit(fitted: BoostedTrees) -> None:
    train = table(1, shape="product")
    weights = train.select(train.height / (pl.len().over("date") * train["date"].n_unique())).to_series().to_numpy()
    reference = HistGradientBoostingRegressor(
        learning_rate=0.05,
        max_iter=40,
        max_leaf_nodes=15,
        max_depth=6,
        min_samples_leaf=20,
        l2_regularization=1.0,
        max_features=0.5,
        max_bins=63,
        early_stopping=False,
        random_state=0,
    ).fit(matrix(train), train["label"], sample_weight=weights)
    values = matrix(table(3, shape="product"))
    assert fitted.predict(values, FEATURES).tobytes() == reference.predict(values).tobytes()


def test_trees_find_what_no_line_can() -> None:
    train, validation, later = (table(seed, 150, shape="product") for seed in (1, 2, 3))
    settings = {"rows_in_leaf": 50, "learning_rate": 0.1}
    trees = BoostedTrees.fit(train, validation, FEATURES, "label", settings)
    line = LinearModel.fit(train, validation, FEATURES, "label")
    assert share_of_achievable(later, trees.predict(matrix(later), FEATURES)) > 0.7
    assert share_of_achievable(later, line.predict(matrix(later), FEATURES)) < 0.2


def test_the_model_ends_with_the_best_tree_on_validation() -> None:
    seen: list[Progress] = []
    settings = {"trees": 300, "patience": 20, "rows_in_leaf": 20, "learning_rate": 0.3}
    train, validation = table(1, 15), table(2, 15, first=2020)
    model = BoostedTrees.fit(
        train, validation, FEATURES, "label", settings, supervision=Supervision(progress=seen.append)
    )
    best = max(seen, key=lambda each: each.validation_rank_ic)
    assert len(model.trees.roots) == best.step < seen[-1].step < 300
    assert model.metrics["validation_rank_ic"] == best.validation_rank_ic
    assert seen[-1].step - best.step >= 20
    losses = [each.loss for each in seen]
    assert losses == sorted(losses, reverse=True)


def test_equal_input_gives_equal_bytes_and_another_seed_does_not(fitted: BoostedTrees, tmp_path: Path) -> None:
    for name, model in (("one", fitted), ("two", fit()), ("other", fit(seed=1))):
        model.save(tmp_path / name)
    one, two, other = ((tmp_path / name / ARTIFACT).read_bytes() for name in ("one", "two", "other"))
    assert one == two != other


def test_a_loaded_model_scores_the_same_bytes_whatever_rows_are_beside(fitted: BoostedTrees, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    loaded = BoostedTrees.load(tmp_path)
    values = matrix(table(4))
    whole = fitted.predict(values, FEATURES)
    assert loaded.predict(values, FEATURES).tobytes() == whole.tobytes()
    assert loaded.predict(np.asfortranarray(values[7:9]), FEATURES).tobytes() == whole[7:9].tobytes()
    assert (loaded.label, loaded.chosen, loaded.metrics) == (fitted.label, fitted.chosen, fitted.metrics)


def test_contributions_and_the_mean_row_add_up_to_the_score(fitted: BoostedTrees) -> None:
    values = matrix(table(4))
    scores, contributions = fitted.predict(values, FEATURES), fitted.contributions(values, FEATURES)
    start = scores - contributions.sum(axis=1)
    np.testing.assert_allclose(start, start[0], atol=1e-9)
    assert start[0] == pytest.approx(fitted.baseline + fitted.trees.value[fitted.trees.roots].sum())
    told = np.abs(contributions).mean(axis=0)
    assert set(np.argsort(-told)[:2]) == {0, 1}


def test_every_date_weighs_the_same() -> None:
    """A date of which every row is there twice changes nothing, but for what the counts of leaves allow."""
    train, validation = table(1), table(2, 20, first=2020)
    first = train["date"][0]
    doubled = pl.concat([train, train.filter(pl.col("date") == first).with_columns(symbol=pl.lit("copy"))])
    settings = {**QUICK, "rows_in_leaf": 1, "l2": 0.0, "leaves": 4, "features_per_split": 1.0, "trees": 5}
    one, two = (
        BoostedTrees.fit(rows, validation, FEATURES, "label", settings).predict(matrix(validation), FEATURES)
        for rows in (train, doubled)
    )
    unweighted = HistGradientBoostingRegressor(max_iter=5, max_leaf_nodes=4, learning_rate=0.05, max_bins=63)
    three = unweighted.fit(matrix(doubled), doubled["label"]).predict(matrix(validation))
    assert np.abs(one - two).max() < 0.5 * np.abs(one - three).max()


def test_a_stop_is_heeded_and_keeps_nothing(tmp_path: Path) -> None:
    asked = iter([False, False, True])
    with pytest.raises(TrainingStopped, match="after 15 trees"):
        BoostedTrees.fit(
            table(1),
            table(2, 20, first=2020),
            FEATURES,
            "label",
            QUICK,
            supervision=Supervision(stop=lambda: next(asked), checkpoints=tmp_path),
        )
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_learned_from_is_refused() -> None:
    train, validation = table(1), table(2, 20, first=2020)
    silent = validation.with_columns(label=pl.lit(None, dtype=pl.Float64))
    with pytest.raises(InvalidInput, match="or give patience 'none'"):
        BoostedTrees.fit(train, silent, FEATURES, "label")
    with pytest.raises(InvalidInput, match="every row of a date has the same"):
        BoostedTrees.fit(train.with_columns(label=pl.lit(1.0)), validation, FEATURES, "label")
    with pytest.raises(InvalidInput, match=r"training features \['f1'\]"):
        BoostedTrees.fit(train.with_columns(f1=pl.lit(None, pl.Float32)), validation, FEATURES, "label")
    with pytest.raises(InvalidInput, match="leave the warm start out"):
        BoostedTrees.fit(train, validation, FEATURES, "label", start_from=fit({"trees": 1, "patience": "none"}))
    assert np.isnan(BoostedTrees.fit(train, silent, FEATURES, "label", QUICK).metrics["validation_rank_ic"])


def _past_the_end(document: dict) -> None:
    document["left"][0] = 10**6


def _to_itself(document: dict) -> None:
    document["right"][0] = 0


def _into_the_next_tree(document: dict) -> None:
    document["left"][0] = document["roots"][1]


def _unknown_feature(document: dict) -> None:
    document["feature"][0] = 6


def _no_number(document: dict) -> None:
    document["value"][1] = float("nan")


def _text(document: dict) -> None:
    document["threshold"][0] = "0"


def _shorter(document: dict) -> None:
    document["value"].pop()


def _no_tree(document: dict) -> None:
    document["roots"] = []


@pytest.mark.parametrize(
    "spoil",
    [_past_the_end, _to_itself, _into_the_next_tree, _unknown_feature, _no_number, _text, _shorter, _no_tree],
)
def test_trees_that_would_run_astray_are_refused(
    spoil: Callable[[dict], None], fitted: BoostedTrees, tmp_path: Path
) -> None:
    """A cycle would never end, and a place outside would read memory that is not the model's."""
    fitted.save(tmp_path)
    document = json.loads((tmp_path / ARTIFACT).read_text())
    spoil(document)
    (tmp_path / ARTIFACT).write_text(json.dumps(document))
    with pytest.raises(InvalidInput, match="train it again"):
        BoostedTrees.load(tmp_path)


def test_a_model_of_no_tree_scores_its_baseline() -> None:
    trees = Trees.of([])
    model = BoostedTrees(("f0",), "label", 0.25, trees)
    assert model.predict(np.ones((2, 1), np.float32), ["f0"]).tolist() == [0.25, 0.25]
