"""A module of features of one's own through a whole strategy: tried before anything is stored, once a version."""

import os
from pathlib import Path

import pytest

from stockpicker_dagster.components import feature_trials
from stockpicker_dagster.research.features.honesty import DishonestFeature
from stockpicker_dagster.runs import days_of_another_definition
from stockpicker_dagster.storage.lake import MixedDefinitions
from stockpicker_dagster_tests.system.pipelines import (
    DAILY_FROM,
    END,
    EVENING,
    START,
    Pipeline,
    differing_files,
    files_form,
    stored_files,
)

HEAD = '''"""Features of my own."""

import numpy as np

from stockpicker_dagster.research.features import feature
from stockpicker_dagster.research.features.rolling import lag

'''
WEEKLY = '''
@feature(lookback=6, inputs=["close", "adjustment"])
def weekly_return(panel):
    """P_t / P_{t-5} - 1."""
    return panel.adjusted_close / lag(panel.adjusted_close, 5) - 1.0


FEATURES = (weekly_return,)
'''
PEEKING = '''
@feature(lookback=2, inputs=["close", "adjustment"])
def peeking(panel):
    """P_{t+1} / P_t - 1."""
    ahead = np.full(panel.shape, np.nan)
    ahead[:-1] = panel.adjusted_close[1:] / panel.adjusted_close[:-1] - 1.0
    return ahead


FEATURES = (peeking,)
'''
TABLE = "hand_made/mine/features"


def with_module(root: Path, text: str, price_file: Path, compute: str = "local") -> Pipeline:
    """A strategy on the hand-made market in `root` whose module `mine` says `text`, computed at `compute`."""
    (root / "features").mkdir(parents=True, exist_ok=True)
    (root / "features" / "mine.py").write_text(HEAD + text)
    before = os.environ["STOCKPICKER_HOME"]
    os.environ["STOCKPICKER_HOME"] = str(root)
    try:
        return Pipeline(root, {"own": files_form(price_file, features={"module": "mine", "compute": compute})})
    finally:
        os.environ["STOCKPICKER_HOME"] = before


@pytest.fixture(scope="module")
def stored(price_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """An honest module, with prices, features and scaled features of the whole market stored in one run."""
    pipeline = with_module(tmp_path_factory.mktemp("own"), WEEKLY, price_file)
    assert pipeline.form.shared_tables[-1] == TABLE
    pipeline.materialize([*pipeline.form.shared_tables, "own/scaled_features"], START, END)
    return pipeline


def test_days_one_by_one_are_the_files_of_the_range(stored: Pipeline, tmp_path: Path) -> None:
    alone = stored.copied_to(tmp_path / "alone")
    for day in (DAILY_FROM, EVENING, END):
        alone.materialize([TABLE, "own/scaled_features"], day)
    assert differing_files(stored_files(stored.lake), stored_files(alone.lake)) == []


def test_a_version_that_passed_is_not_tried_again(stored: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = sorted(path.name.rsplit("-", 1)[1] for path in (stored.root / "tried_features").iterdir())
    assert passed == ["hand_made", "invented"]

    def fail(*_: object) -> None:
        raise AssertionError("was tried again")

    monkeypatch.setattr(feature_trials, "try_on", fail)
    monkeypatch.setattr(feature_trials, "try_on_invented_prices", fail)
    stored.materialize([TABLE], EVENING, END)


def test_a_feature_that_looks_ahead_is_refused_before_anything_is_stored(price_file: Path, tmp_path: Path) -> None:
    pipeline = with_module(tmp_path, PEEKING, price_file)
    pipeline.materialize([pipeline.prices], START, END)
    with pytest.raises(DishonestFeature, match=r"'peeking' looks ahead.* of S0 on .* null and becomes"):
        pipeline.materialize([TABLE], START, END)
    assert pipeline.lake.days(TABLE) == []
    assert not (tmp_path / "tried_features").exists()


def test_an_edited_module_makes_all_days_again(stored: Pipeline, price_file: Path, tmp_path: Path) -> None:
    root = stored.copied_to(tmp_path / "edited").root
    edited = with_module(
        root, WEEKLY.replace("lag(panel.adjusted_close, 5)", "lag(panel.adjusted_close, 4)"), price_file
    )
    days = edited.lake.days(TABLE)
    assert days_of_another_definition("own", edited.form, edited.lake) == days
    assert days_of_another_definition("own", stored.form, edited.lake) == []
    with pytest.raises(MixedDefinitions, match=TABLE):
        edited.materialize([TABLE], EVENING)
    edited.materialize([TABLE, "own/scaled_features"], days[0], days[-1])
    assert days_of_another_definition("own", edited.form, edited.lake) == []
    assert not edited.lake.read(TABLE, days).equals(stored.lake.read(TABLE, days))
