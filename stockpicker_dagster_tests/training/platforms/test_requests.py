"""A training's request is one that SageMaker could accept, and its name says what is learned."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from stockpicker_dagster.training.container.settings import Settings
from stockpicker_dagster.training.platforms import requests
from stockpicker_dagster.training.platforms.local import LocalPlatform
from stockpicker_dagster.training.platforms.requests import METRICS, TrainingJob, training_request
from stockpicker_dagster.training.platforms.validation import validate_request

SETTINGS = Settings("linear", {"alpha": 1.0}, 0, "a_long_name_of_a_strategy_as_long_as_may_be", "2023-06-01", "d", "e")


def test_the_request_is_one_that_sagemaker_could_accept(tmp_path: Path, dataset_folder: Path) -> None:
    request = training_request(LocalPlatform(tmp_path), TrainingJob(SETTINGS, dataset_folder, 3600), 2, {"run": "x"})
    validate_request("CreateTrainingJob", request, schemes=("file",))
    assert [channel["ChannelName"] for channel in request["InputDataConfig"]] == ["train", "validation", "captions"]
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600}
    tags = {tag["Key"]: tag["Value"] for tag in request["Tags"]}
    assert tags == {"stockpicker:strategy": SETTINGS.strategy, "stockpicker:period": "2023-06-01", "run": "x"}


def test_an_earlier_model_is_a_channel_of_its_own_and_changes_the_name(tmp_path: Path, dataset_folder: Path) -> None:
    cold = TrainingJob(SETTINGS, dataset_folder)
    (tmp_path / "model").mkdir()
    warm = TrainingJob(replace(SETTINGS, start_from="0123456789abcdef"), dataset_folder, start_from=tmp_path / "model")
    assert warm.name(1) != cold.name(1)
    request = training_request(LocalPlatform(tmp_path), warm)
    validate_request("CreateTrainingJob", request, schemes=("file",))
    channel = request["InputDataConfig"][-1]
    assert channel["ChannelName"] == "earlier"
    assert channel["DataSource"]["S3DataSource"]["S3Uri"].endswith("/model")
    assert request["HyperParameters"]["start_from"] == "0123456789abcdef"


def test_the_name_changes_with_all_that_is_learned_and_with_nothing_else(
    dataset_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = TrainingJob(SETTINGS, dataset_folder)
    assert job.name(1) == TrainingJob(SETTINGS, dataset_folder, 60).name(1)
    changed = [{"hyperparameters": {"alpha": 1}}, {"seed": 1}, {"strategy": "b"}, {"period": "2"}, {"definition": "x"}]
    names = {job.name(1), *(TrainingJob(replace(SETTINGS, **each), dataset_folder).name(1) for each in changed)}
    monkeypatch.setattr(requests, "code_version", lambda: "another")
    names.add(job.name(1))
    monkeypatch.setattr(requests, "read_captions", lambda folder: {"data_version": "another"})
    names.add(job.name(1))
    assert len(names) == len(changed) + 3
    for name in (*names, job.name(99), TrainingJob(Settings("linear", {}), dataset_folder).name(1)):
        assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", name), name
    assert job.name(2).endswith(job.name(1)[-17:] + "-2")


@pytest.mark.parametrize("line", ['progress {"step": 3, "of": 9, "loss": 0.25, "validation_rank_ic": -1.5e-05}'])
def test_a_platform_finds_the_figures_in_a_line_of_progress(line: str) -> None:
    found = {each["Name"]: float(re.findall(each["Regex"], line, re.MULTILINE)[-1]) for each in METRICS}
    assert found == {"step": 3.0, "loss": 0.25, "validation_rank_ic": -1.5e-05}
