from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms import Progress, Supervision, TrainingStopped
from stockpicker_dagster.training import search as module
from stockpicker_dagster.training.search import SearchSettings, check_search, search
from stockpicker_dagster_tests.research.algorithms.planted import FEATURES, table

TRAIN, VALIDATION = table(1, 60, 12), table(2, 30, 12, first=2020)
OVER = {"method": ["ridge", "elastic_net"], "alpha": [0.001, 10.0]}


def found(settings: SearchSettings, supervision: Supervision | None = None, seed: int = 0) -> module.SearchResult:
    return search("linear", TRAIN, VALIDATION, FEATURES, "label", {}, settings, seed, 2, supervision or Supervision())


@pytest.mark.parametrize("method", ["walk_forward", "combinatorial"])
def test_the_best_of_all_trials_is_taken_and_each_is_told(method: module.Method) -> None:
    seen: list[Progress] = []
    result = found(SearchSettings(5, OVER, method), Supervision(seen.append))
    assert [each.number for each in result.trials] == [1, 2, 3, 4, 5]
    assert [(each.step, each.of) for each in seen] == [(step, 5) for step in range(1, 6)]
    assert [each.validation_rank_ic for each in seen] == [each.rank_ic for each in result.trials]
    best = max(result.trials, key=lambda each: each.rank_ic)
    assert result.hyperparameters == best.hyperparameters
    assert all(
        len(each.rank_ics) == 3 and each.rank_ic == pytest.approx(np.mean(each.rank_ics)) for each in result.trials
    )


def test_a_search_that_was_stopped_goes_on_to_the_same_result(tmp_path: Path) -> None:
    whole = found(SearchSettings(5, OVER))
    seen: list[Progress] = []
    with pytest.raises(TrainingStopped, match="after 2 of 5 trials"):
        found(SearchSettings(5, OVER), Supervision(seen.append, lambda: len(seen) == 2, tmp_path))
    assert found(SearchSettings(5, OVER), Supervision(seen.append, checkpoints=tmp_path)) == whole
    assert [each.step for each in seen] == [1, 2, 3, 4, 5]
    # Trials of another seed are not gone on from.
    assert found(SearchSettings(5, OVER), Supervision(checkpoints=tmp_path), seed=1).trials != whole.trials


def test_no_fold_learns_from_labels_that_reach_into_what_judges_it(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = module.algorithm("linear")
    dates = pl.concat([TRAIN, VALIDATION])["date"].unique().sort().to_list()
    fitted: list[tuple[list[int], list[int]]] = []

    class Watched(learner):  # type: ignore[misc, valid-type]
        @classmethod
        def fit(cls, train: pl.DataFrame, validation: pl.DataFrame, *rest: object, **more: object) -> object:
            fitted.append(
                (
                    [dates.index(day) for day in train["date"].unique()],
                    [dates.index(day) for day in validation["date"].unique()],
                )
            )
            return learner.fit(train, validation, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "algorithm", lambda name: Watched)
    found(SearchSettings(1, OVER))
    assert len(fitted) == 3
    for place, (known, chosen) in enumerate(fitted):
        tested = len(dates) * (place + 1) // 4
        assert max(known) + 1 + 2 < min(chosen)
        assert max(chosen) + 1 + 2 < tested


@pytest.mark.parametrize(
    ("given", "over", "why"),
    [
        ({}, {}, "nothing to search over"),
        ({"alpha": 1.0}, OVER, "'alpha' is both given and searched over"),
        ({}, {"alpa": [1, 2]}, "did you mean 'alpha'"),
        ({}, {"alpha": [1.0]}, "give \\[least, most\\], or two choices"),
        ({}, {"alpha": 1.0}, "give \\[least, most\\]"),
        ({}, {"alpha": [-1.0, 2.0]}, "alpha -1.0 is not allowed"),
        ({}, {"alpha": [2.0, 1.0]}, "alpha \\[2.0, 1.0\\] is reversed"),
        ({}, {"method": ["ridge", "lasso"]}, "method 'lasso' is not allowed"),
    ],
)
def test_what_cannot_be_searched_is_refused(given: dict[str, object], over: dict[str, object], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        check_search("linear", given, SearchSettings(3, over))  # type: ignore[arg-type]


def test_lists_and_yes_or_no_are_searched_as_choices() -> None:
    settings = SearchSettings(2, {"widths": [[4], [8]], "batch_norm": [True, False], "hidden_layers": [1, 1.0]})
    with pytest.raises(InvalidInput, match="reversed"):
        check_search("neural_network", {}, settings)
    proposed = module._proposed(
        "neural_network", SearchSettings(2, {"widths": [[4], [8]], "batch_norm": [True, False]}), [], 0
    )
    assert proposed["widths"] in ([4], [8])
    assert proposed["batch_norm"] in (True, False)


def test_settings_that_an_algorithm_refuses_are_a_trial_without_a_rank_ic() -> None:
    twins = [frame.with_columns(f1=pl.col("f0")) for frame in (TRAIN, VALIDATION)]
    result = search(
        "linear", *twins, FEATURES, "label", {"method": "ridge"}, SearchSettings(4, {"alpha": [0.0, 0.0, 1.0]}), 0, 2
    )
    assert result.hyperparameters["alpha"] == 1.0
    assert {each.rank_ics for each in result.trials if each.hyperparameters["alpha"] == 0.0} <= {()}


def test_too_few_dates_are_refused() -> None:
    few = SearchSettings(1, OVER, "walk_forward", 40)
    with pytest.raises(InvalidInput, match="fewer folds"):
        found(few)
