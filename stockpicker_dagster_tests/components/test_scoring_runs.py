"""A step that scores on a platform: the same table as in this process, with what it used in its metadata."""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from stockpicker_dagster.components import scoring_runs
from stockpicker_dagster.components.scoring_runs import scorers
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.training.models import train_model
from stockpicker_dagster.training.platforms.local import LocalPlatform
from stockpicker_dagster.training.scoring import score_days
from stockpicker_dagster_tests.components.forms import strategy_form
from stockpicker_dagster_tests.training.small_strategy import FEATURES, SCALED, TESTED, dataset

PERIODS = ("2023-06-01", "2023-06-12")


def _models(folder: Path) -> dict[str, Path]:
    lake = Lake(folder / "lake")
    lake.write_bundle("bundles", "dataset", dataset())
    for period in PERIODS:
        made = train_model("mine", period, lake.bundle("bundles", "dataset"), "linear", {"alpha": 1.0}, 0)
        lake.write_bundle("mine/trained_model", period, made)
    return {period: lake.bundle("mine/trained_model", period) for period in PERIODS}


def _scored(training: dict[str, Any], folders: dict[str, Path]) -> tuple[pl.DataFrame, dict[str, Any]]:
    made: list[Any] = []

    @dg.asset
    def predictions(context: dg.AssetExecutionContext) -> None:
        form = strategy_form(training=training)
        asked = scorers(context, "mine", form, FEATURES, folders, dict.fromkeys(PERIODS, ""))
        table = score_days(
            SCALED, TESTED, FEATURES, TESTED[0], asked.models, lambda day: max(p for p in PERIODS if p <= str(day)),
            asked.infer,
        )  # fmt: skip
        made.extend([table, asked.metadata])

    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([predictions], instance=instance)
    return made[0], made[1]


def test_where_days_are_scored_changes_nothing_about_the_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = LocalPlatform(tmp_path / "platform", stop_seconds=3)
    monkeypatch.setattr(scoring_runs, "platform", lambda name, **settings: here)
    folders = _models(tmp_path)
    expected, said = _scored({}, folders)
    assert said == {"scored_by": "process"}
    table, said = _scored({"scoring": "transform"}, folders)
    assert expected.height == SCALED.filter(pl.col("date").is_in(TESTED)).height
    assert table.equals(expected)
    assert (said["scored_by"], said["platform"]) == ("transform", "local")
    assert said["scoring_seconds"] > 0
    assert "cost_formula" not in said  # this machine sends no bill
    jobs = here.client.list_transform_jobs()["TransformJobSummaries"]
    assert {each["TransformJobStatus"] for each in jobs} == {"Completed"}
    assert len(jobs) == len(PERIODS)
    assert here.client.list_models()["Models"] == []
