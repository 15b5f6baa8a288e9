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
from stockpicker_dagster.storage.aws.settings import aws_settings
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import Lake, MissingBundle, MissingDays
from stockpicker_dagster.storage.places.s3 import S3Place
from stockpicker_dagster.training.platforms.sagemaker import SageMakerPlatform
from stockpicker_dagster_tests.aws.buckets import fill, make_bucket, objects
from stockpicker_dagster_tests.aws.faulty_proxy import Fault, FaultyProxy
from stockpicker_dagster_tests.aws.fixtures import ACCOUNT, REGION
from stockpicker_dagster_tests.aws.working_sagemaker import WorkingSageMaker
from stockpicker_dagster_tests.system.pipelines import (
    CALENDAR,
    DAILY_FROM,
    EVENING,
    Pipeline,
    differing_files,
    files_form,
    market_rows,
    stored_files,
)

pytestmark = pytest.mark.xdist_group("time rules")

LATER = date(2023, 1, 30)
"""By then a delisting is known of the stock that traded last before `EVENING`."""
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


def _differing(on_disk: dict[str, bytes], on_s3: dict[str, bytes], day: date) -> list[str]:
    """Files of every daily table up to `day`, of the model and of what it learned from, that are not the same."""

    def wanted(name: str) -> bool:
        of_days = name.endswith("/year=2022/year.parquet") or Path(name).name <= f"{day}.parquet"
        learned = ("momentum/trained_model/", "momentum/datasets/fixed/train", "momentum/datasets/fixed/validation")
        return of_days if "/year=" in name else name.startswith(learned)

    one, other = ({name: files[name] for name in files if wanted(name)} for files in (on_disk, on_s3))
    assert len(one) > 50
    return differing_files(one, other)


@pytest.mark.long
def test_every_time_rule_holds_over_s3_and_every_byte_is_that_of_a_folder(
    hub: Any, whole_run: Pipeline, eve_run: Pipeline, tmp_path: Path, aws: FaultyProxy
) -> None:
    path, rows = tmp_path / "prices.csv", market_rows()
    pipeline = Pipeline(tmp_path / "home", {"momentum": files_form(path)})
    on_disk = stored_files(whole_run.lake)
    # The eve as a folder has it: days of a year that is not over, and no model yet.
    eve = stored_files(eve_run.lake, lambda name: not name.startswith(eve_run.training))
    fill(BUCKET, {f"lake/{name}": content for name, content in eve.items()})

    # Truncation: what is stored by the evening is what a run that knew the future stored for those days.
    rows.filter(pl.col("date") <= EVENING).write_csv(path)
    pipeline.run(DAILY_FROM, EVENING)
    assert _differing(on_disk, _stored(hub), EVENING) == []
    assert not (tmp_path / "home" / "lake").exists()

    # Backfill equals daily: a range, then days one by one, amid faults that pass.
    two_before = CALENDAR.offset(LATER, -2)
    rows.filter(pl.col("date") <= two_before).write_csv(path)
    pipeline.materialize((*pipeline.collecting, *pipeline.serving), CALENDAR.next_session(EVENING), two_before)
    for day in CALENDAR.sessions(CALENDAR.next_session(two_before), LATER):
        rows.filter(pl.col("date") <= day).write_csv(path)
        aws.fail(Fault("GET", "cut_answer", 2), Fault("PUT", "answer", 2, 503, "SlowDown"), Fault("PUT", "reset", 1))
        pipeline.materialize((*pipeline.collecting, *pipeline.serving), day)
        aws.forget()
    pipeline.train()
    assert _differing(on_disk, _stored(hub), LATER) == []

    # Nothing missing in silence.
    day = CALENDAR.previous_session(LATER)
    hub.delete_object(Bucket=BUCKET, Key=f"lake/momentum/predictions/year=2023/{day}.parquet")
    with pytest.raises(MissingDays, match=f"^momentum/predictions was never materialized for .*{day}"):
        pipeline.materialize(["momentum/backtest_metrics"], day, LATER)
    with pipeline.at_home() as deployment:
        deployment.lake.keep_bundles("momentum/trained_model", [])
    with pytest.raises(MissingBundle, match=r"^momentum/trained_model was never materialized for 'fixed'"):
        pipeline.serve(LATER)


def test_no_run_can_redirect_the_lake_on_s3(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    lake = Deployment().lake
    assert str(lake.place) == f"s3://{BUCKET}/lake"
    assert Deployment().lake is lake
    assert Deployment.model_fields == {}


@pytest.fixture(scope="module")
def quickstart_on_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the quickstart stores on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        return _quickstart(patch, tmp_path_factory.mktemp("on_disk"))


def _quickstart(patch: pytest.MonkeyPatch, root: Path) -> dict[str, bytes]:
    """Runs the quickstart with one model in the deployment that the environment names; the lake afterwards."""
    for name in ("DAGSTER_HOME", "NUMBA_CACHE_DIR"):
        # `prepare_home` sets them; they are put back after the test.
        patch.setenv(name, os.environ.get(name, ""))
    patch.setenv("STOCKPICKER_HOME", str(root))
    prepare_home(announce=False)
    form, place = runs.find_strategy("quickstart"), Deployment()
    span = runs.span_to_run("quickstart", form, place, None, date(2025, 1, 10))
    runs.run_strategy("quickstart", form, place, span, lambda _: None)
    on_s3 = isinstance(place.lake.place, S3Place)
    assert on_s3 == (os.environ.get("STOCKPICKER_DEPLOYMENT") == "aws")
    return _stored(client("s3")) if on_s3 else stored_files(Lake(home().lake))


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("platform", ["local", "sagemaker"])
def test_the_quickstart_on_s3_leaves_the_lake_of_the_quickstart_on_disk(
    platform: str,
    quickstart_on_disk: dict[str, bytes],
    hub: Any,
    aws: FaultyProxy,
    moto_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if platform == "sagemaker":
        # Nothing but the one setting: models are trained and asked where the deployment is.
        monkeypatch.delenv("STOCKPICKER_TRAINING_PLATFORM")
        make_bucket(aws_settings().data_for_training)
        monkeypatch.setattr(SageMakerPlatform, "poll_seconds", 0.05)
        aws.service = WorkingSageMaker(moto_url, tmp_path / "machines")
    on_s3 = _quickstart(monkeypatch, tmp_path / "home")
    assert any("/trained_model/" in name for name in on_s3)
    assert any("/predictions/" in name for name in on_s3)
    assert differing_files(quickstart_on_disk, on_s3) == []
    asked = getattr(aws.service, "asked", [])
    assert asked == (
        [] if platform == "local" else ["CreateTrainingJob", "CreateModel", "CreateTransformJob", "DeleteModel"]
    )
