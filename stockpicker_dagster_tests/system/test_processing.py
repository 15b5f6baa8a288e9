"""A strategy that asks for processing jobs, through Dagster on the local platform: the lake is that of any run."""

from pathlib import Path

import pytest

from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.training.platforms.local import LocalPlatform
from stockpicker_dagster_tests.system.pipelines import (
    EVENING,
    START,
    Pipeline,
    differing_files,
    simulated_form,
    stored_files,
)

NEUTRAL = {"method": "rank", "winsorize": 0.02, "neutralize": ["sector", "size"]}


@pytest.mark.long
def test_the_lake_is_the_one_that_a_run_in_this_process_leaves(tmp_path: Path) -> None:
    here = Pipeline(tmp_path / "here", {"one": simulated_form(scaling=NEUTRAL)})
    here.materialize(here.collecting, START, EVENING)
    asking = {"one": simulated_form(scaling=NEUTRAL, features={"set": "short", "compute": "processing"})}
    there = Pipeline(tmp_path / "there", asking)
    there.materialize(there.collecting, START, EVENING)
    with there.at_home():
        listed = LocalPlatform().client.list_processing_jobs()["ProcessingJobSummaries"]
    assert {job["ProcessingJobStatus"] for job in listed} == {"Completed"}
    # One a calendar year of features, and one for scaling.
    assert len(listed) == EVENING.year - START.year + 2
    assert differing_files(stored_files(here.lake), stored_files(there.lake)) == []
    assert len(Lake(there.root / "lake").days("one/scaled_features")) > 60
