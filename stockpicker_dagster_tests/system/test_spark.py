"""Strategies that ask for Spark, through Dagster on a real one: the lake has the files of a run in this process."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster_tests.system.pipelines import (
    END,
    EVENING,
    START,
    Pipeline,
    differing_files,
    simulated_form,
    stored_files,
)
from stockpicker_dagster_tests.system.test_own_features import WEEKLY, with_module

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.xdist_group("spark")

NEUTRAL = {"method": "rank", "winsorize": 0.02, "neutralize": ["sector", "size"]}


def jobs(spark: "SparkSession") -> int:
    return len(spark.sparkContext.statusTracker().getJobIdsForGroup(None))


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    pipeline = Pipeline(tmp_path_factory.mktemp("local"), {"one": simulated_form(scaling=NEUTRAL)})
    pipeline.collect(START, END)
    return pipeline


def asking(pipeline: Pipeline, root: Path, **features: Any) -> Pipeline:
    """A strategy of the same settings that asks for Spark, with the prices of `pipeline` and nothing else stored."""
    prices = pipeline.copied_to(root).root / "lake"
    for table in ("simulated/short", "one"):
        for path in sorted((prices / table).rglob("*.parquet")):
            path.unlink()
    assert Lake(prices).days("one/scaled_features") == []
    return Pipeline(root, {"one": simulated_form(scaling=NEUTRAL, features={"set": "short", "compute": "spark"})})


def test_the_lake_is_the_one_that_a_run_in_this_process_leaves(
    spark: "SparkSession", in_process: Pipeline, tmp_path: Path
) -> None:
    there, before = asking(in_process, tmp_path / "spark"), jobs(spark)
    there.materialize(there.collecting[1:], START, END)
    assert jobs(spark) >= before + 3
    assert differing_files(stored_files(in_process.lake), stored_files(there.lake)) == []
    # Where days were computed is no part of their definition: the next evening may be computed here again.
    here = Pipeline(there.root, in_process.forms)
    here.materialize(here.collecting[1:], EVENING)
    assert differing_files(stored_files(in_process.lake), stored_files(here.lake)) == []


def test_a_set_that_several_share_runs_on_spark_if_one_asks_for_it() -> None:
    forms = {"one": simulated_form(), "two": simulated_form(features={"set": "short", "compute": "spark"})}
    job = Pipeline(Path("unused"), forms).job
    kinds = {
        key.to_user_string(): {tag for tag in job.asset_layer.get(key).tags if tag.startswith("dagster/kind/")}
        for key in job.asset_layer.executable_asset_keys
    }
    assert "dagster/kind/spark" in kinds["simulated/short/features"]
    assert "dagster/kind/spark" in kinds["two/scaled_features"]
    assert "dagster/kind/spark" not in kinds["one/scaled_features"]


def test_a_module_of_ones_own_goes_to_spark(spark: "SparkSession", price_file: Path, tmp_path: Path) -> None:
    table, files = "hand_made/mine/features", []
    for place in ("local", "spark"):
        pipeline = with_module(tmp_path / place, WEEKLY, price_file, compute=place)
        before = jobs(spark)
        pipeline.materialize(pipeline.form.shared_tables, START, END)
        assert (jobs(spark) > before) == (place == "spark")
        files.append(stored_files(pipeline.lake, lambda name: name.startswith(table)))
    assert len(files[0]) > 20
    assert differing_files(*files) == []


def test_what_is_missing_fails_the_asset_in_one_sentence(in_process: Pipeline, tmp_path: Path) -> None:
    from stockpicker_dagster.compute import spark_session

    there = asking(in_process, tmp_path / "spark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spark_session, "find_spec", lambda name: None)
        with pytest.raises(spark_session.SparkUnavailable, match="needs the extra `spark`"):
            there.materialize(there.collecting[1:2], EVENING)
    assert there.lake.days(there.collecting[1]) == []
