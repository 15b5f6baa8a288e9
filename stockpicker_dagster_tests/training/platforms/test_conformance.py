"""What every platform promises, tried on this machine, on SageMaker's emulator, and, opted in, on AWS.

The emulator keeps what it is sent and does nothing of it: there, models, outputs and answers are played by the
container's own code. `STOCKPICKER_TEST_AWS=1` with the environment of a deployment runs the same on a real account,
which costs about a tenth of a dollar; its image and buckets have to be there.
"""

import io
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import polars as pl
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from stockpicker_dagster.storage.aws.clients import client
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.training.container.serve import answer
from stockpicker_dagster.training.container.settings import Settings
from stockpicker_dagster.training.models import StoredModel, describe_model, load_model, train_model
from stockpicker_dagster.training.platforms import Platform, PlatformFailure, attempts
from stockpicker_dagster.training.platforms.custom_models import ModelFolder, archive
from stockpicker_dagster.training.platforms.errors import client_error, error_code
from stockpicker_dagster.training.platforms.following import train_on
from stockpicker_dagster.training.platforms.hosting import (
    create_endpoint,
    create_endpoint_config,
    create_model,
    delete_deployment,
    delete_endpoint,
    delete_endpoint_config,
    delete_model,
    in_service,
    invoke_in_batches,
)
from stockpicker_dagster.training.platforms.local import LocalPlatform
from stockpicker_dagster.training.platforms.polling import wait_for
from stockpicker_dagster.training.platforms.reaper import left_over, reap
from stockpicker_dagster.training.platforms.requests import TrainingJob
from stockpicker_dagster.training.platforms.sagemaker import SageMakerPlatform
from stockpicker_dagster.training.platforms.scoring import infer
from stockpicker_dagster.training.platforms.scoring_requests import How, Scoring
from stockpicker_dagster_tests.aws.buckets import make_bucket
from stockpicker_dagster_tests.aws.fake_sagemaker import transformed
from stockpicker_dagster_tests.training.platforms.served_model import ROWS, same, scored_here, stored_model
from stockpicker_dagster_tests.training.small_strategy import FEATURES

HOWS: tuple[How, ...] = ("transform", "serverless", "endpoint")
REAL = "STOCKPICKER_TEST_AWS"


@pytest.fixture
def model(tmp_path: Path) -> tuple[StoredModel, Path]:
    return stored_model(tmp_path)


@pytest.fixture(params=["local", "sagemaker", *(["account"] if os.environ.get(REAL) == "1" else [])])
def place(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: tuple[StoredModel, Path],
) -> Iterator[Platform]:
    """A platform; what it leaves is removed with the test's folder or the emulator's account."""
    if request.param == "local":
        yield cast(Platform, LocalPlatform(tmp_path / "platform", stop_seconds=3))
        return
    if request.param == "account":
        yield cast(Platform, SageMakerPlatform())
        return
    request.getfixturevalue("aws")
    monkeypatch.setenv("STOCKPICKER_DEPLOYMENT", "aws")
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(SageMakerPlatform, "poll_seconds", 0.01)
    sagemaker = SageMakerPlatform()
    make_bucket(sagemaker.bucket)
    sagemaker.client.sagemaker = _Played(sagemaker.client.sagemaker, model[1])
    sagemaker.runtime = sagemaker.client.sagemaker
    yield cast(Platform, sagemaker)


class _Played:
    """The emulator's client, beside which somebody does what the service would do."""

    def __init__(self, emulator: Any, files: Path) -> None:
        self.emulator, self.files, self.model = emulator, files, load_model(files, "mine", FEATURES)

    def __getattr__(self, operation: str) -> Any:
        call = getattr(self.emulator, operation)
        verb, _, noun = operation.partition("_")
        if verb != "create":
            return call
        name_key = "".join(word.capitalize() for word in noun.split("_")) + "Name"

        def created(**request: Any) -> Any:
            # The service refuses a name that is taken; the emulator replaces what has it.
            try:
                getattr(self.emulator, f"describe_{noun}")(**{name_key: request[name_key]})
            except ClientError:
                return call(**request)
            raise client_error(operation, "ValidationException", f"Cannot create already existing {noun}")

        return created

    def create_training_job(self, **request: Any) -> Any:
        made = self.emulator.create_training_job(**request)
        target = urlsplit(request["OutputDataConfig"]["S3OutputPath"])
        key = f"{target.path.strip('/')}/{request['TrainingJobName']}/output/model.tar.gz"
        client("s3").put_object(Bucket=target.netloc, Key=key, Body=archive(self.files))
        return made

    def create_transform_job(self, **request: Any) -> Any:
        made = self.emulator.create_transform_job(**request)
        source = urlsplit(request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"])
        target = urlsplit(request["TransformOutput"]["S3OutputPath"])
        s3, key = client("s3"), source.path.strip("/")
        content = s3.get_object(Bucket=source.netloc, Key=key)["Body"].read()
        into = f"{target.path.strip('/')}/{key.rpartition('/')[2]}.out"
        s3.put_object(Bucket=target.netloc, Key=into, Body=transformed(self.model, request, content))
        return made

    def invoke_endpoint(self, *, EndpointName: str, Body: bytes, ContentType: str, Accept: str) -> Any:
        self.emulator.describe_endpoint(EndpointName=EndpointName)
        kind, said = answer(self.model, ContentType, Body, Accept, reasons=True)
        return {"Body": io.BytesIO(said), "ContentType": kind}


def _scoring(place: Platform, model: tuple[StoredModel, Path], how: How) -> Scoring:
    folder = ModelFolder(place, "research", model[0].model_id)
    return Scoring(place, model[0], folder, folder.artifact(model[1]), how, "0" * 64)


def _left(place: Platform) -> list[str]:
    return [str(each) for each in left_over(place, datetime.now(UTC) + timedelta(minutes=1), timedelta(0))]


@pytest.mark.parametrize("how", HOWS)
def test_scores_are_those_of_this_process_to_the_last_bit_and_nothing_is_left(
    how: How, place: Platform, model: tuple[StoredModel, Path]
) -> None:
    rows = ROWS.sample(fraction=1, shuffle=True, seed=3)
    said = wait_for(infer(place, how, "research", *model, rows))
    assert same(said.scored, scored_here(model[1], rows))
    assert _left(place) == []
    # Asked again, nothing is computed twice by a transform, and an endpoint is made anew.
    again = wait_for(infer(place, how, "research", *model, rows))
    assert again.name == said.name
    assert same(again.scored, said.scored)
    assert _left(place) == []


def test_a_model_that_a_job_trained_is_deployed_from_what_the_job_left(
    place: Platform, model: tuple[StoredModel, Path], tmp_path: Path
) -> None:
    dataset = Lake(tmp_path / "lake").bundle("bundles", "dataset")
    job = TrainingJob(Settings("linear", {"alpha": 1.0}, 0, "mine", "2023-06-01"), dataset)
    trained = train_on(place, job)
    assert trained.bundle == train_model("mine", "2023-06-01", dataset, "linear", {"alpha": 1.0}, 0)
    artifact = trained.job["ModelArtifacts"]["S3ModelArtifacts"]
    folder = ModelFolder(place, "research", model[0].model_id)
    folder.create(describe_model(trained.bundle), artifact, trained.job["TrainingJobName"])
    assert folder.artifact(model[1]) == artifact
    said = wait_for(infer(place, "transform", "research", *model, ROWS))
    assert same(said.scored, scored_here(model[1]))
    # The second step takes the job of the first.
    assert train_on(place, job).job["TrainingJobName"] == trained.job["TrainingJobName"]


def test_every_function_can_be_done_twice_and_is_undone(place: Platform, model: tuple[StoredModel, Path]) -> None:
    scoring = _scoring(place, model, "endpoint")
    name = scoring.name()
    for _ in range(2):
        create_model(place, scoring.model_request())
        create_endpoint_config(place, scoring.endpoint_config_request())
        create_endpoint(place, scoring.endpoint_request())
    wait_for(in_service(place, name))
    # A body for each row or two, and every row is answered once.
    answers = wait_for(invoke_in_batches(place, name, ROWS.select("symbol", "date", *FEATURES), FEATURES, 90))
    assert answers.select("symbol", "date").equals(ROWS.select("symbol", "date"))
    other = scoring.model_request()
    other["PrimaryContainer"] |= {"Environment": {"A": "b"}}
    with pytest.raises(PlatformFailure, match=r"there is another model .*, whose PrimaryContainer is"):
        create_model(place, other)
    for _ in range(2):
        assert delete_endpoint(place, name)
        assert delete_endpoint_config(place, name)
        assert delete_model(place, name)
    assert _left(place) == []


def test_a_models_folder_holds_what_is_known_of_it(place: Platform, model: tuple[StoredModel, Path]) -> None:
    folder = ModelFolder(place, "a team@example.com", model[0].model_id)
    assert folder.location == f"{place.custom_models}/a_team@example.com/{model[0].model_id}"
    assert folder.metadata is None
    packed = folder.artifact(model[1])
    assert packed == f"{folder.location}/model/model.tar.gz"
    # The archive of a job that is gone is not named; one that is there is taken.
    folder.create({"strategy": "mine"}, f"{place.output}/models/gone/output/model.tar.gz", "gone")
    assert folder.artifact(model[1]) == packed
    left = f"{place.output}/models/job/output/model.tar.gz"
    place.store(left, place.fetch(packed))
    folder.create({"strategy": "mine"}, left, "job")
    assert folder.artifact(model[1]) == left
    known = {"owner": "a team@example.com", "model_id": model[0].model_id, "artifact": left, "training_job": "job"}
    assert folder.metadata == known | {"model": {"strategy": "mine"}}


def _variant(**resources: Any) -> dict[str, Any]:
    return {"ProductionVariants": [{"VariantName": "all", "ModelName": "m", **resources}]}


_HUGE = _variant(InstanceType="ml.m5.huge", InitialInstanceCount=1)
_ODD = _variant(ServerlessConfig={"MemorySizeInMB": 3000, "MaxConcurrency": 1})
_BOTH = _variant(ServerlessConfig={"MemorySizeInMB": 2048, "MaxConcurrency": 1}, InitialInstanceCount=1)
_SMALL = {"TransformResources": {"InstanceType": "ml.t3.medium", "InstanceCount": 1}}


_REFUSED: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("create_model", {"ModelName": "a_b"}, "ModelName 'a_b' is not allowed"),
    ("create_model", {"ModelName": "a" * 64}, "ModelName has 64 characters; allowed: at most 63"),
    ("create_endpoint", {"EndpointName": "-a"}, "EndpointName '-a' is not allowed"),
    ("create_endpoint_config", _variant(), "lacks InstanceType and InitialInstanceCount, or a ServerlessConfig"),
    ("create_endpoint_config", _ODD, "MemorySizeInMB 3000 is not allowed; allowed: 1024"),
    ("create_endpoint_config", _BOTH, "has a ServerlessConfig, and InitialInstanceCount"),
    ("create_endpoint_config", _HUGE, r"InstanceType 'ml\.m5\.huge' is not allowed; allowed: "),
    ("create_transform_job", {"MaxPayloadInMB": 50}, "times MaxConcurrentTransforms 4 is above 100"),
    ("create_transform_job", {"BatchStrategy": "Many"}, "BatchStrategy 'Many' is not allowed"),
    ("create_transform_job", _SMALL, r"InstanceType 'ml\.t3\.medium' is not allowed; allowed: "),
)


def test_what_cannot_be_is_refused_before_it_is_sent(place: Platform, model: tuple[StoredModel, Path]) -> None:
    scoring = _scoring(place, model, "transform")
    requests = {
        "create_model": scoring.model_request(),
        "create_endpoint_config": scoring.endpoint_config_request(),
        "create_endpoint": scoring.endpoint_request(),
        "create_transform_job": scoring.transform_request(1, f"{scoring.folder.location}/rows.csv"),
    }
    for operation, changes, said in _REFUSED:
        with pytest.raises(ClientError, match=said) as refused:
            getattr(place.client, operation)(**{**requests[operation], **changes})
        assert error_code(refused.value) == "ValidationException"
    assert _left(place) == []


def test_output_that_is_not_whole_is_refused_and_made_again(
    place: Platform, model: tuple[StoredModel, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, cut = place.fetch, 1

    def cut_off(location: str) -> bytes:
        nonlocal cut
        content = fetch(location)
        if location.endswith(".out") and cut:
            cut -= 1
            return content[: len(content) // 2]
        return content

    monkeypatch.setattr(place, "fetch", cut_off)
    said: list[str] = []
    found = wait_for(infer(place, "transform", "research", *model, ROWS, say=said.append))
    assert same(found.scored, scored_here(model[1]))
    assert found.name.endswith("-2")
    assert "cannot be used" in said[0]
    cut = 99
    monkeypatch.setattr(attempts, "_LOST", 0)
    with pytest.raises(PlatformFailure, match=r"nothing of it is used|no table of symbol"):
        wait_for(infer(place, "transform", "research", *model, ROWS.head(5)))
    assert _left(place) == []


def test_the_reaper_takes_what_is_old_and_ours_and_leaves_the_rest(
    place: Platform, model: tuple[StoredModel, Path]
) -> None:
    scoring = _scoring(place, model, "serverless")
    name, now = scoring.name(), datetime.now(UTC)
    foreign = {**scoring.model_request(), "ModelName": "theirs", "Tags": []}
    create_model(place, foreign)
    create_model(place, scoring.model_request())
    create_endpoint_config(place, scoring.endpoint_config_request())
    create_endpoint(place, scoring.endpoint_request())
    wait_for(in_service(place, name))
    # The process that was to delete it is dead.
    assert reap(place, now) == []
    later = now + timedelta(hours=3)
    reaped = reap(place, later)
    assert [(left.what, left.name, gone) for left, gone in reaped] == [
        (what, name, True) for what in ("endpoint", "endpoint configuration", "model")
    ]
    assert reap(place, later) == []
    assert [each["ModelName"] for each in place.client.list_models()["Models"]] == ["theirs"]
    assert delete_model(place, "theirs")


def test_an_endpoint_that_fails_says_why_and_is_deleted(place: Platform, model: tuple[StoredModel, Path]) -> None:
    if place.name == "local":
        scoring, empty = _scoring(place, model, "endpoint"), f"{place.output}/empty.tar.gz"
        place.store(empty, b"no archive")
        broken = Scoring(place, model[0], scoring.folder, empty, "endpoint", "1" * 64)
        create_model(place, broken.model_request())
        create_endpoint_config(place, broken.endpoint_config_request())
        create_endpoint(place, broken.endpoint_request())
        with pytest.raises(PlatformFailure, match="is Failed: Failed to download model data"):
            wait_for(in_service(place, broken.name()))
        assert delete_deployment(place, broken.name()) == []
    elif place.name == "sagemaker" and not os.environ.get(REAL):
        emulator = cast(Any, place.client).sagemaker.emulator
        with Stubber(emulator) as stubber:
            moment = datetime.now(UTC)
            arn = "arn:aws:sagemaker:eu-central-1:123456789012:endpoint/e"
            needed = {"EndpointName": "e", "EndpointArn": arn, "CreationTime": moment, "LastModifiedTime": moment}
            for more in ({"EndpointStatus": "Creating"}, {"EndpointStatus": "Failed", "FailureReason": "no capacity"}):
                stubber.add_response("describe_endpoint", {**needed, **more})
            with pytest.raises(PlatformFailure, match="the endpoint e is Failed: no capacity"):
                wait_for(in_service(place, "e"))
            stubber.add_client_error("describe_endpoint", "AccessDeniedException", "no")
            with pytest.raises(PlatformFailure, match="attach the policies"):
                wait_for(in_service(place, "e"))
    assert _left(place) == []


def test_rows_that_cannot_be_told_apart_are_refused(place: Platform, model: tuple[StoredModel, Path]) -> None:
    with pytest.raises(PlatformFailure, match="1 rows name a symbol and a day twice"):
        wait_for(infer(place, "transform", "research", *model, pl.concat([ROWS, ROWS.head(1)])))
