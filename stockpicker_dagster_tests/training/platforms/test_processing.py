"""Functions of frames as jobs of a platform: the same bytes, found again, stopped with who asked, never half an answer.

Here the platform is the local one, whose jobs are the container's own code; what is sent to SageMaker is held against
the service's model.
"""

import sys
import time
import types
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stockpicker_dagster.compute.in_process import IN_PROCESS
from stockpicker_dagster.compute.travelling import packed
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.cross_section import scale_at
from stockpicker_dagster.research.features import compute, feature_set
from stockpicker_dagster.research.features.computation import compute_by_year
from stockpicker_dagster.storage.aws.clients import client
from stockpicker_dagster.storage.aws.settings import aws_settings
from stockpicker_dagster.training.container.compute import ANSWER
from stockpicker_dagster.training.platforms import PlatformFailure, attempts, polling
from stockpicker_dagster.training.platforms.local import LocalPlatform
from stockpicker_dagster.training.platforms.processing import OnPlatform, engine
from stockpicker_dagster.training.platforms.sagemaker import SageMakerPlatform
from stockpicker_dagster_tests.aws.buckets import make_bucket
from stockpicker_dagster_tests.aws.faulty_proxy import FaultyProxy
from stockpicker_dagster_tests.research.price_frames import CALENDAR, START, random_market, same_bytes, sessions

DAYS = sessions(START, date(2019, 1, 15))
WANTED = DAYS[-3:]
KEYS = {"symbol": pl.String, "date": pl.Date}
ROWS = pl.DataFrame({"symbol": ["A", "B"], "date": [DAYS[0]] * 2})


@pytest.fixture
def here(tmp_path: Path) -> LocalPlatform:
    return LocalPlatform(tmp_path / "training", stop_seconds=5)


@pytest.fixture
def place(here: LocalPlatform, tmp_path: Path) -> OnPlatform:
    return OnPlatform(here, tmp_path / "processing")


def as_it_is(frame: pl.DataFrame) -> pl.DataFrame:
    return frame


def without_end(frame: pl.DataFrame) -> pl.DataFrame:
    time.sleep(600)
    return frame


def wrong(frame: pl.DataFrame) -> pl.DataFrame:
    raise InvalidInput("prices have more than one row for S3; keep one row a day and symbol")


def jobs(platform: LocalPlatform) -> dict[str, str]:
    """The status of each job by its name."""
    listed = platform.client.list_processing_jobs(SortBy="Name", SortOrder="Ascending")["ProcessingJobSummaries"]
    return {job["ProcessingJobName"]: job["ProcessingJobStatus"] for job in listed}


def test_features_and_scaling_are_bit_identical(place: OnPlatform, here: LocalPlatform, tmp_path: Path) -> None:
    features, market = feature_set("factors").select(["momentum_12_1", "volatility_3m"]), random_market(DAYS, 9, seed=5)
    pieces = compute_by_year(features, market.lazy(), WANTED, CALENDAR, START, where=place)
    expected = compute(features, market, WANTED, CALENDAR, START)
    assert same_bytes(pl.concat(table for _, table in pieces), expected)
    arguments = (expected, features.names, "rank", "median")
    assert same_bytes(scale_at(place, *arguments), scale_at(IN_PROCESS, *arguments))
    assert list(jobs(here).values()) == ["Completed"] * 2
    # What travelled is gone: the answer is stored by whoever asked.
    assert list((tmp_path / "processing").iterdir()) == []
    assert here.listed(f"{here.output}/processing") == []


def test_a_step_that_starts_again_follows_its_own_job(
    place: OnPlatform, here: LocalPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(seconds: float) -> None:
        raise SystemExit

    monkeypatch.setattr(polling, "pause", killed)
    # A process that is killed stops nothing.
    monkeypatch.setattr(attempts, "stop", lambda platform, kind, name: None)
    with pytest.raises(SystemExit):
        place.run(as_it_is, [ROWS], "symbol", KEYS)
    monkeypatch.undo()
    assert same_bytes(OnPlatform(here, tmp_path / "processing").run(as_it_is, [ROWS], "symbol", KEYS), ROWS)
    assert list(jobs(here).values()) == ["Completed"]


def test_whoever_stops_waiting_stops_the_job(
    place: OnPlatform, here: LocalPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(polling, "pause", cancelled)
    with pytest.raises(KeyboardInterrupt):
        place.run(without_end, [ROWS], "symbol", KEYS)
    until = time.monotonic() + 30
    while {"InProgress", "Stopping"} & set(jobs(here).values()) and time.monotonic() < until:
        time.sleep(0.05)
    assert list(jobs(here).values()) == ["Stopped"]


def test_what_a_function_says_is_what_the_reader_is_told(place: OnPlatform, here: LocalPlatform) -> None:
    with pytest.raises(PlatformFailure, match=r"failed: AlgorithmError: .* 1; .*: prices have more than one row"):
        place.run(wrong, [ROWS], "symbol", KEYS)
    assert list(jobs(here).values()) == ["Failed"]


def test_an_answer_of_other_columns_is_refused(place: OnPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnPlatform, "_answer", lambda self, stem, by, given: ROWS)
    with pytest.raises(PlatformFailure, match="answered with the columns"):
        place.run(as_it_is, [ROWS], "symbol", {**KEYS, "x": pl.Float32})


def test_an_engine_that_does_not_exist_is_named() -> None:
    assert engine("spark") == "spark"
    with pytest.raises(InvalidInput, match="engine 'dask' is unknown; known: process, spark"):
        engine("dask")


OWN = """
import polars as pl
SCALE = 3.0
def work(frame):
    return frame.with_columns(x=pl.lit(SCALE))
"""


@pytest.fixture
def own_module() -> Iterator[types.ModuleType]:
    """A module that no other process can import."""
    module = types.ModuleType("known_to_this_test_alone")
    sys.modules[module.__name__] = module
    exec(OWN, module.__dict__)
    yield module
    del sys.modules[module.__name__]


def test_a_module_of_ones_own_travels(here: LocalPlatform, tmp_path: Path, own_module: types.ModuleType) -> None:
    place = OnPlatform(here, tmp_path / "processing", own_modules=[own_module.__name__])
    answer = place.run(own_module.work, [ROWS], "symbol", {**KEYS, "x": pl.Float64})
    assert answer["x"].to_list() == [3.0, 3.0]


# What SageMaker is sent -----------------------------------------------------------------------------------------------


@pytest.fixture
def account(aws: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FaultyProxy:
    monkeypatch.setenv("STOCKPICKER_DEPLOYMENT", "aws")
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STOCKPICKER_AWS_KMS_KEY", "alias/mine")
    monkeypatch.setattr(SageMakerPlatform, "poll_seconds", 0.01)
    make_bucket(aws_settings().data_for_training)
    aws.forget()
    return aws


def test_sagemaker_is_sent_what_the_deployment_demands(
    account: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = SageMakerPlatform()
    place = OnPlatform(platform, tmp_path / "processing", "ml.r5.2xlarge", engine="spark")
    sent: list[dict[str, Any]] = []
    create = platform.client.sagemaker.create_processing_job

    def recorded(**request: Any) -> Any:
        sent.append(request)
        # The emulator computes nothing: the answer is put where the job would have left it.
        key = f"jobs/processing/{request['ProcessingJobName']}/{ANSWER}"
        client("s3").put_object(Bucket=platform.bucket, Key=key, Body=packed(ROWS))
        return create(**request)

    monkeypatch.setattr(platform.client.sagemaker, "create_processing_job", recorded)
    unstage, done = platform.unstage, list[str]()
    monkeypatch.setattr(platform, "unstage", done.append)
    assert same_bytes(place.run(as_it_is, [ROWS], "symbol", KEYS), ROWS)
    [request] = sent
    assert request["AppSpecification"]["ContainerArguments"] == ["compute"]
    assert request["NetworkConfig"] == {"EnableNetworkIsolation": True}
    cluster = request["ProcessingResources"]["ClusterConfig"]
    assert (cluster["InstanceType"], cluster["VolumeKmsKeyId"]) == ("ml.r5.2xlarge", "alias/mine")
    assert request["ProcessingOutputConfig"]["KmsKeyId"] == "alias/mine"
    assert {"Key": "stockpicker", "Value": "stockpicker"} in request["Tags"]
    [given] = request["ProcessingInputs"]
    prefix = given["S3Input"]["S3Uri"].removeprefix(f"s3://{platform.bucket}/")
    listed = client("s3").list_objects_v2(Bucket=platform.bucket, Prefix=prefix)["Contents"]
    assert {each["Key"].rpartition("/")[2] for each in listed} == {"function", "0.arrow", "schema.arrow"}
    unstage(done[0])
    assert "Contents" not in client("s3").list_objects_v2(Bucket=platform.bucket, Prefix="staged/")


def test_a_machine_that_sagemaker_lacks_is_refused_before_it_is_asked(account: FaultyProxy, tmp_path: Path) -> None:
    place = OnPlatform(SageMakerPlatform(), tmp_path / "processing", "ml.x1.large")
    with pytest.raises(PlatformFailure, match=r"InstanceType 'ml\.x1\.large' is not allowed; allowed: ml\."):
        place.run(as_it_is, [ROWS], "symbol", KEYS)
    assert list(account.requests("CreateProcessingJob")) == []
