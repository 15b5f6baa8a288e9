"""The job `cold_start`: what the command does, from Dagster's pages, with nothing that a run could redirect."""

from pathlib import Path

import pytest

from stockpicker_dagster.definitions import bind
from stockpicker_dagster.defs.cold_start.definitions import definitions
from stockpicker_dagster.storage.deployment import Deployment


def test_the_job_makes_what_is_lacking_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    job = bind(definitions()).get_job_def("cold_start")
    assert job.execute_in_process().success
    assert Deployment().lake.bundles("universes/sp500/members")
    assert (tmp_path / "stockpicker.sqlite").is_file()
    assert job.execute_in_process().success
