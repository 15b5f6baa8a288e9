"""One setting takes strategies to AWS: the same forms train there, score there, and leave the lake of this machine."""

from pathlib import Path
from typing import Any

import pytest

from stockpicker_dagster import runs
from stockpicker_dagster.cold_start import cold_start
from stockpicker_dagster.storage.aws.clients import client
from stockpicker_dagster.storage.aws.settings import aws_settings
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.training.platforms.sagemaker import SageMakerPlatform
from stockpicker_dagster_tests.aws.buckets import fill, objects
from stockpicker_dagster_tests.aws.faulty_proxy import FaultyProxy
from stockpicker_dagster_tests.aws.working_sagemaker import WorkingSageMaker
from stockpicker_dagster_tests.system.pipelines import (
    CALENDAR,
    END,
    Pipeline,
    differing_files,
    files_form,
    stored_files,
)

pytestmark = pytest.mark.xdist_group("time rules")

FIRST = CALENDAR.offset(END, -2)
DEPLOYED = ["CreateModel", "CreateEndpointConfig", "CreateEndpoint", "InvokeEndpoint"]
DELETED = ["DeleteEndpoint", "DeleteEndpoint", "DeleteEndpointConfig", "DeleteModel"]


@pytest.fixture
def account(aws: FaultyProxy, moto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkingSageMaker:
    """An account in which jobs do their work, after its cold start; the one setting is made."""
    monkeypatch.setenv("STOCKPICKER_DEPLOYMENT", "aws")
    monkeypatch.setattr(SageMakerPlatform, "poll_seconds", 0.02)
    with pytest.MonkeyPatch.context() as here:
        here.setenv("STOCKPICKER_HOME", str(tmp_path / "cold_start"))
        list(cold_start(Deployment()))
    aws.service = service = WorkingSageMaker(moto_url, tmp_path / "machines")
    return service


def _hub() -> tuple[Any, str]:
    return client("s3"), aws_settings().company_data_hub


def test_a_strategy_trains_is_deployed_scores_and_is_deleted_by_one_setting(
    account: WorkingSageMaker, whole_run: Pipeline, tmp_path: Path
) -> None:
    s3, hub = _hub()
    here = stored_files(whole_run.lake)
    collected = [f"{table}/year=" for table in (*whole_run.collecting, "hand_made/delistings", "hand_made/quarantine")]
    lacking = [f"momentum/predictions/year=2023/{day}.parquet" for day in CALENDAR.sessions(FIRST, END)]
    past = [
        name for name in here if name.startswith((*collected, "momentum/predictions/year=")) and name not in lacking
    ]
    fill(hub, {f"lake/{name}": here[name] for name in past})

    # The very form that ran on this machine, which names no platform.
    pipeline = Pipeline(tmp_path / "home", whole_run.forms)
    pipeline.train()
    assert account.asked == ["CreateTrainingJob"]
    pipeline.materialize(["momentum/predictions"], FIRST, CALENDAR.previous_session(END))
    assert account.asked[1:] == ["CreateModel", "CreateTransformJob", "DeleteModel"]

    account.asked.clear()
    serverless = files_form(whole_run.form.prices.path or Path(), training={"scoring": "serverless"})
    day = Pipeline(tmp_path / "home", {"momentum": serverless})
    day.materialize(["momentum/predictions"], END)
    assert account.asked == [*DEPLOYED, *DELETED]

    there = objects(s3, hub, "lake/")
    made = ("momentum/trained_model/", "momentum/datasets/", "momentum/predictions/")
    compared = {name: content for name, content in here.items() if name.startswith(made)}
    assert len(compared) > 20
    assert differing_files(compared, {name: there[name] for name in there if name.startswith(made)}) == []
    assert not (tmp_path / "home" / "training").exists()
    training = objects(s3, aws_settings().data_for_training)
    assert [name for name in training if name.startswith("staged/") or "/inputs/" in name] == []
    assert any(name.startswith("custom-models/research/") and name.endswith("/metadata.json") for name in training)


def test_the_shipped_strategies_follow_the_setting_and_one_that_names_its_platform_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    forms = runs.strategies()
    assert {"quickstart", "sp500_linear"} <= set(forms)
    assert {(form.training.runs_on, form.training.scored_by) for form in forms.values()} == {("local", "process")}
    monkeypatch.setenv("STOCKPICKER_DEPLOYMENT", "aws")
    assert {(form.training.runs_on, form.training.scored_by) for form in forms.values()} == {("sagemaker", "transform")}
    stays = files_form(tmp_path / "prices.csv", training={"platform": "local"})
    assert (stays.training.runs_on, stays.training.scored_by) == ("local", "process")
    monkeypatch.setenv("STOCKPICKER_TRAINING_PLATFORM", "local")
    assert {(form.training.runs_on, form.training.scored_by) for form in forms.values()} == {("local", "process")}
    goes = files_form(tmp_path / "prices.csv", training={"platform": "sagemaker"})
    assert (goes.training.runs_on, goes.training.scored_by) == ("sagemaker", "transform")
