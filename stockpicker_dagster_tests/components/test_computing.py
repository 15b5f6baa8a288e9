"""Dagster's assets get the place that they ask for, and run configuration cannot redirect it."""

from pathlib import Path

import dagster as dg
import pytest

from stockpicker_dagster.components import computing
from stockpicker_dagster.components.computing import Computing
from stockpicker_dagster.compute.in_process import IN_PROCESS
from stockpicker_dagster.compute.spark import OnSpark
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.training.platforms.processing import OnPlatform


def test_the_place_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(computing, "spark_session", lambda home: started.append(home))
    assert Computing().at("local") is IN_PROCESS
    assert started == []
    assert isinstance(Computing().at("spark"), OnSpark)
    assert len(started) == 1


def test_processing_jobs_are_this_machines_unless_the_deployment_is_aws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    assert isinstance(Computing().at("processing"), OnPlatform)
    assert (tmp_path / "training").is_dir()
    monkeypatch.setenv("STOCKPICKER_PROCESSING_ENGINE", "dask")
    with pytest.raises(InvalidInput, match="engine 'dask' is unknown"):
        Computing().at("processing")


def test_run_configuration_cannot_choose_the_cluster() -> None:
    @dg.op
    def nothing(computing: Computing) -> None:
        pass

    @dg.job(resource_defs={"computing": Computing()})
    def only() -> None:
        nothing()

    with pytest.raises(dg.DagsterInvalidConfigError):
        only.execute_in_process(run_config={"resources": {"computing": {"config": {"master": "spark://elsewhere"}}}})
