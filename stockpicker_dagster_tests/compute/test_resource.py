"""Dagster's assets get the place that they ask for, and run configuration cannot redirect it."""

import dagster as dg
import pytest

from stockpicker_dagster.compute import resource
from stockpicker_dagster.compute.in_process import IN_PROCESS
from stockpicker_dagster.compute.resource import Computing
from stockpicker_dagster.compute.spark import OnSpark


def test_the_place_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(resource, "spark_session", lambda home: started.append(home))
    assert Computing().at("local") is IN_PROCESS
    assert started == []
    assert isinstance(Computing().at("spark"), OnSpark)
    assert len(started) == 1


def test_run_configuration_cannot_choose_the_cluster() -> None:
    @dg.op
    def nothing(computing: Computing) -> None:
        pass

    @dg.job(resource_defs={"computing": Computing()})
    def only() -> None:
        nothing()

    with pytest.raises(dg.DagsterInvalidConfigError):
        only.execute_in_process(run_config={"resources": {"computing": {"config": {"master": "spark://elsewhere"}}}})
