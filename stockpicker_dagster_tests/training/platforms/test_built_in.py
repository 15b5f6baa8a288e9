"""Built-in algorithms are asked by their own conventions, and what they leave is read as data or not at all.

The emulator trains nothing, so what SageMaker would leave is played: models by XGBoost itself, which is the library in
SageMaker's image, and answers as its documentation shows them.
"""

import csv
import io
import tarfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.aws.clients import client
from stockpicker_dagster.storage.aws.settings import aws_settings
from stockpicker_dagster.training.datasets import LABEL, read_captions
from stockpicker_dagster.training.platforms import Platform, PlatformFailure
from stockpicker_dagster.training.platforms.built_in import BuiltInTraining, as_csv, train_built_in
from stockpicker_dagster.training.platforms.built_in_scoring import read_scores, score_built_in
from stockpicker_dagster.training.platforms.built_in_settings import validate_settings
from stockpicker_dagster.training.platforms.local import LocalPlatform
from stockpicker_dagster.training.platforms.sagemaker import SageMakerPlatform
from stockpicker_dagster_tests.aws.buckets import make_bucket
from stockpicker_dagster_tests.aws.faulty_proxy import FaultyProxy


@pytest.fixture
def account(aws: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FaultyProxy:
    monkeypatch.setenv("STOCKPICKER_DEPLOYMENT", "aws")
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(SageMakerPlatform, "poll_seconds", 0.01)
    make_bucket(aws_settings().data_for_training)
    aws.forget()
    return aws


def training(algorithm: Any, dataset: Path, tmp_path: Path, **hyperparameters: object) -> BuiltInTraining:
    return BuiltInTraining(algorithm, dataset, tmp_path / "csv", "mine", "2023-06-01", hyperparameters)


def table(dataset: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(dataset / f"{name}.parquet", hive_partitioning=False)


def leave(platform: SageMakerPlatform, job: str, files: dict[str, bytes]) -> None:
    """Puts a model's archive where the service would have put it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    key = f"jobs/models/{job}/output/model.tar.gz"
    client("s3").put_object(Bucket=platform.bucket, Key=key, Body=buffer.getvalue())


def sent(platform: SageMakerPlatform, monkeypatch: pytest.MonkeyPatch, *operations: str) -> list[dict[str, Any]]:
    """What is sent from here on, after it was completed and held against the service's model."""
    requests: list[dict[str, Any]] = []
    # So that it can be looked at afterwards.
    monkeypatch.setattr(platform, "unstage", lambda work: None)
    for operation in operations:
        call = getattr(platform.client.sagemaker, operation)

        def recorded(call: Any = call, **request: Any) -> Any:
            requests.append(request)
            return call(**request)

        monkeypatch.setattr(platform.client.sagemaker, operation, recorded)
    return requests


def staged(platform: SageMakerPlatform, request: dict[str, Any], channel: str) -> bytes:
    [uri] = [
        each["DataSource"]["S3DataSource"]["S3Uri"]
        for each in request["InputDataConfig"]
        if each["ChannelName"] == channel
    ]
    key = uri.removeprefix(f"s3://{platform.bucket}/")
    return bytes(client("s3").get_object(Bucket=platform.bucket, Key=key)["Body"].read())


def test_xgboost_is_sent_label_first_and_its_model_scores_here_as_there(
    account: FaultyProxy, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import xgboost

    platform = SageMakerPlatform()
    work = training("xgboost", dataset_folder, tmp_path, num_round=5, eta=0.3, max_depth=3)
    features = read_captions(dataset_folder)["features"]
    known = table(dataset_folder, "train").drop_nulls(LABEL)
    learned = xgboost.DMatrix(known.select(features).to_numpy(), label=known[LABEL].to_numpy())
    settings = {"eta": 0.3, "max_depth": 3, "nthread": 1, "objective": "reg:squarederror"}
    booster = xgboost.train(settings, learned, 5)
    leave(platform, work.name(1, cast(Platform, platform)), {"xgboost-model": bytes(booster.save_raw("ubj"))})

    requests = sent(platform, monkeypatch, "create_training_job")
    model = train_built_in(platform, work)
    values = table(dataset_folder, "validation").select(features).to_numpy().astype(np.float32)
    assert np.abs(model.predict(values) - booster.predict(xgboost.DMatrix(values))).max() <= 1e-6
    assert train_built_in(platform, work).artifact == model.artifact
    [request] = requests  # the second step took up the first one's job
    assert request["AlgorithmSpecification"]["TrainingImage"].endswith("/sagemaker-xgboost:3.2-0")
    assert {"num_round": "5", "eta": "0.3", "booster": "gbtree"}.items() <= request["HyperParameters"].items()
    assert {each["ContentType"] for each in request["InputDataConfig"]} == {"text/csv"}
    rows = list(csv.reader(io.StringIO(staged(platform, request, "train").decode())))
    assert len(rows) == known.height
    assert [np.float32(cell) for cell in rows[0][1:]] == list(known.select(features).row(0))
    assert [float(row[0]) for row in rows] == known[LABEL].to_list()


def test_a_model_that_would_have_to_be_executed_is_not_read(
    account: FaultyProxy, dataset_folder: Path, tmp_path: Path
) -> None:
    import pickle

    platform, work = SageMakerPlatform(), training("xgboost", dataset_folder, tmp_path)
    for attempt in range(1, 5):
        leave(platform, work.name(attempt, cast(Platform, platform)), {"xgboost-model": pickle.dumps({"trees": 1})})
    with pytest.raises(PlatformFailure, match="no model of XGBoost's that can be read"):
        train_built_in(platform, work)


def test_the_linear_learner_is_scored_by_the_platform_alone_and_leaves_no_model_there(
    account: FaultyProxy, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform, work = SageMakerPlatform(), training("linear-learner", dataset_folder, tmp_path, epochs=3)
    requests = sent(platform, monkeypatch, "create_training_job", "create_model", "create_transform_job")
    model = train_built_in(platform, work)
    rows = table(dataset_folder, "validation").head(3)
    with pytest.raises(InvalidInput, match="is scored by the platform alone"):
        model.predict(rows.select(work.features).to_numpy())

    class Answering:
        """The service's part: a line of JSON for each line of CSV."""

        def __call__(self, location: str) -> bytes:
            assert location.endswith(".csv.out")
            return b'{"score": 0.25}\n{"score": -1.5}\n{"score": 3e-05}\n'

    monkeypatch.setattr(platform, "fetch", Answering())
    scores = score_built_in(platform, model, rows)
    assert scores["score"].to_list() == [0.25, -1.5, 3e-05]
    assert scores.select("symbol", "date").equals(rows.select("symbol", "date"))
    trained, made, transformed = requests
    assert trained["HyperParameters"]["predictor_type"] == "regressor"
    assert made["PrimaryContainer"]["ModelDataUrl"] == model.artifact
    assert transformed["TransformOutput"]["Accept"] == "application/jsonlines"
    assert transformed["TransformInput"]["SplitType"] == "Line"
    assert client("sagemaker").list_models()["Models"] == []
    monkeypatch.setattr(platform, "fetch", lambda location: b'{"score": 1}\n')
    with pytest.raises(PlatformFailure, match=r"answered 1 scores, .* for 2 rows"):
        score_built_in(platform, model, rows.head(2))
    assert client("sagemaker").list_models()["Models"] == []


def test_this_machine_has_no_images_of_awss(dataset_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is an image of AWS's; train it with platform 'sagemaker'"):
        train_built_in(LocalPlatform(tmp_path / "training"), training("xgboost", dataset_folder, tmp_path))


@pytest.mark.parametrize(
    ("algorithm", "given", "said"),
    [
        ("xgboost", {"etta": 0.1}, "'etta' of algorithm 'xgboost' is unknown; did you mean 'eta'"),
        ("xgboost", {"eta": 1.5}, "hyperparameter eta 1.5 is not allowed; allowed: float of at least 0 and at most 1"),
        ("xgboost", {"objective": "multi:softmax"}, "objective 'multi:softmax' is not allowed"),
        ("linear-learner", {"learning_rate": 0}, "learning_rate 0 is not allowed; .* or 'auto'"),
        ("kmeans", {}, "'kmeans' is unknown; known: xgboost, linear-learner"),
    ],
)
def test_settings_are_checked_before_anything_is_sent(algorithm: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        validate_settings(algorithm, given)


def test_rows_that_no_algorithm_takes_are_refused_or_left_out() -> None:
    rows = pl.DataFrame({LABEL: [1.0, None, 3.0], "a": [0.5, 1.0, 2.0]})
    assert as_csv(rows, ["a"]) == b"1.0,0.5\n3.0,2.0\n"
    assert as_csv(rows, ["a"], label=None) == b"0.5\n1.0\n2.0\n"
    with pytest.raises(InvalidInput, match="columns a have values that are not finite"):
        as_csv(rows.with_columns(a=pl.Series([1.0, None, float("nan")])), ["a"])
    with pytest.raises(InvalidInput, match="no row with a label"):
        as_csv(rows.with_columns(pl.lit(None, pl.Float64).alias(LABEL)), ["a"])


@pytest.mark.parametrize(
    ("algorithm", "content", "scores"),
    [
        ("xgboost", b"0.5\n-1\n", [0.5, -1.0]),
        ("xgboost", b"0.5,-1", [0.5, -1.0]),
        ("linear-learner", b'{"score": 0.5}\n{"score": -1}\n', [0.5, -1.0]),
        ("xgboost", b"0.5\n", None),
        ("xgboost", b"0.5\nnan\n", None),
        ("linear-learner", b'{"points": 1}\n', None),
        ("linear-learner", b"\xff", None),
    ],
)
def test_answers_are_read_whole_or_not_at_all(algorithm: str, content: bytes, scores: list[float] | None) -> None:
    if scores is not None:
        assert read_scores(algorithm, content, 2) == scores
        return
    with pytest.raises(PlatformFailure, match=algorithm):
        read_scores(algorithm, content, 2)
