"""The time rules and the whole pipeline over a lake on S3: every byte is that of a folder."""

import os
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stockpicker_dagster import runs
from stockpicker_dagster.home import home, prepare_home
from stockpicker_dagster.storage.aws.clients import client
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import Lake, MissingBundle, MissingDays
from stockpicker_dagster.storage.places.s3 import S3Place
from stockpicker_dagster_tests.aws.buckets import make_bucket, objects
from stockpicker_dagster_tests.aws.faulty_proxy import Fault, FaultyProxy
from stockpicker_dagster_tests.aws.fixtures import ACCOUNT, REGION
from stockpicker_dagster_tests.system.pipelines import (
    CALENDAR,
    END,
    EVENING,
    START,
    Pipeline,
    differing_files,
    files_form,
    market_rows,
    stored_files,
)
from stockpicker_dagster_tests.system.test_time_rules import _before

pytestmark = pytest.mark.xdist_group("time rules")

BUCKET = f"stockpicker-company-data-hub-{ACCOUNT}-{REGION}"


@pytest.fixture
def hub(aws: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The deployment `aws` with its bucket, whose models are trained on this machine, and S3's client."""
    s3 = make_bucket(BUCKET)
    monkeypatch.setenv("STOCKPICKER_DEPLOYMENT", "aws")
    monkeypatch.setenv("STOCKPICKER_TRAINING_PLATFORM", "local")
    return s3


def _stored(s3: Any) -> dict[str, bytes]:
    return objects(s3, BUCKET, "lake/")


def test_every_time_rule_holds_over_s3_and_every_byte_is_that_of_a_folder(
    hub: Any, whole_run: Pipeline, tmp_path: Path, aws: FaultyProxy
) -> None:
    path, rows = tmp_path / "prices.csv", market_rows()
    pipeline = Pipeline(tmp_path / "home", {"momentum": files_form(path)})

    # Truncation: what is stored by the evening is what a run that knew the future stored for those days.
    rows.filter(pl.col("date") <= EVENING).write_csv(path)
    pipeline.run(START, EVENING)
    on_disk = stored_files(whole_run.lake)
    past = {name: content for name, content in on_disk.items() if _before(name)}
    assert len(past) > 50
    assert differing_files(past, {name: content for name, content in _stored(hub).items() if _before(name)}) == []
    assert not (tmp_path / "home" / "lake").exists()

    # Backfill equals daily: a range, then days one by one, amid faults that pass.
    two_before = CALENDAR.offset(END, -2)
    rows.filter(pl.col("date") <= two_before).write_csv(path)
    following = CALENDAR.next_session(EVENING)
    pipeline.materialize((*pipeline.collecting, *pipeline.serving), following, two_before)
    for day in CALENDAR.sessions(CALENDAR.next_session(two_before), END):
        rows.filter(pl.col("date") <= day).write_csv(path)
        aws.fail(Fault("GET", "cut_answer", 2), Fault("PUT", "answer", 2, 503, "SlowDown"), Fault("PUT", "reset", 1))
        pipeline.materialize((*pipeline.collecting, *pipeline.serving), day)
        aws.forget()
    pipeline.train()
    assert differing_files(on_disk, _stored(hub)) == []

    # Nothing missing in silence.
    day = date(2023, 2, 7)
    hub.delete_object(Bucket=BUCKET, Key=f"lake/momentum/predictions/year=2023/{day}.parquet")
    with pytest.raises(MissingDays, match=f"^momentum/predictions was never materialized for .*{day}"):
        pipeline.materialize(["momentum/backtest_metrics"], day, END)
    with pipeline.at_home() as deployment:
        deployment.lake.keep_bundles("momentum/trained_model", [])
    with pytest.raises(MissingBundle, match=r"^momentum/trained_model was never materialized for 'fixed'"):
        pipeline.serve(END)


def test_no_run_can_redirect_the_lake_on_s3(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    lake = Deployment().lake
    assert str(lake.place) == f"s3://{BUCKET}/lake"
    assert Deployment().lake is lake
    assert Deployment.model_fields == {}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_quickstart_on_s3_leaves_the_lake_of_the_quickstart_on_disk(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[dict[str, bytes]] = []
    for name in ("DAGSTER_HOME", "NUMBA_CACHE_DIR"):
        # `prepare_home` sets them; they are put back after the test.
        monkeypatch.setenv(name, os.environ.get(name, ""))
    for deployment, root in (("local", tmp_path / "on_disk"), ("aws", tmp_path / "on_s3")):
        monkeypatch.setenv("STOCKPICKER_DEPLOYMENT", deployment)
        monkeypatch.setenv("STOCKPICKER_HOME", str(root))
        prepare_home(announce=False)
        form, place = runs.find_strategy("quickstart"), Deployment()
        span = runs.span_to_run("quickstart", form, place, None, date(2025, 1, 10))
        runs.run_strategy("quickstart", form, place, span, lambda _: None)
        stored.append(stored_files(Lake(home().lake)) if deployment == "local" else _stored(client("s3")))
        assert isinstance(place.lake.place, S3Place) == (deployment == "aws")
    assert any("/trained_model/" in name for name in stored[0])
    assert any("/predictions/" in name for name in stored[0])
    assert differing_files(*stored) == []
