"""SageMaker as a platform: what is sent is what the deployment demands and the service takes, and faults are sentences.

The emulator completes every job at once and writes nothing, so that its part is the shape of requests; what the service
says beyond that is played by botocore's Stubber and by the faulty proxy.
"""

import importlib.util
import io
import json
import tarfile
import time
from datetime import date
from pathlib import Path
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.storage.aws.clients import client
from stockpicker_dagster.storage.aws.settings import aws_settings
from stockpicker_dagster.training.container.settings import Settings
from stockpicker_dagster.training.models import StoredModel, train_model
from stockpicker_dagster.training.platforms import Platform, PlatformFailure, platform
from stockpicker_dagster.training.platforms.custom_models import ModelFolder
from stockpicker_dagster.training.platforms.following import train_on
from stockpicker_dagster.training.platforms.requests import TrainingJob, training_request
from stockpicker_dagster.training.platforms.sagemaker import SageMakerPlatform
from stockpicker_dagster.training.platforms.scoring_requests import How, Scoring
from stockpicker_dagster_tests.aws.buckets import make_bucket
from stockpicker_dagster_tests.aws.faulty_proxy import Fault, FaultyProxy
from stockpicker_dagster_tests.aws.fixtures import ACCOUNT, REGION

LINEAR = Settings("linear", {"alpha": 1.0}, 0, "mine", "2023-06-01")


@pytest.fixture
def account(aws: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FaultyProxy:
    monkeypatch.setenv("STOCKPICKER_DEPLOYMENT", "aws")
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(SageMakerPlatform, "poll_seconds", 0.01)
    make_bucket(aws_settings().data_for_training)
    aws.forget()
    return aws


def _packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _upload_model(place: SageMakerPlatform, job: TrainingJob, dataset: Path) -> Any:
    """Puts the model where the service would have put it; the emulator trains nothing."""
    bundle = train_model("mine", "2023-06-01", dataset, "linear", {"alpha": 1.0}, 0)
    key = f"jobs/models/{job.name(1, cast(Platform, place))}/output/model.tar.gz"
    packed = _packed({name: content for name, content in bundle.files.items() if isinstance(content, bytes)})
    client("s3").put_object(Bucket=place.bucket, Key=key, Body=packed)
    return bundle


def test_a_training_gives_the_model_of_this_machine_and_is_found_again(
    account: FaultyProxy, dataset_folder: Path
) -> None:
    place, job = SageMakerPlatform(), TrainingJob(LINEAR, dataset_folder)
    bundle = _upload_model(place, job, dataset_folder)
    trained = train_on(place, job)
    assert trained.bundle == bundle
    assert train_on(place, job).bundle == bundle
    assert len(account.requests("CreateTrainingJob")) == 1  # the second step took up the first one's job


def test_requests_carry_what_the_deployment_demands(
    account: FaultyProxy, dataset_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPICKER_AWS_KMS_KEY", "alias/mine")
    monkeypatch.setenv("STOCKPICKER_AWS_SUBNETS", "subnet-1,subnet-2")
    monkeypatch.setenv("STOCKPICKER_AWS_SECURITY_GROUPS", "sg-1")
    place = SageMakerPlatform("ml.c5.2xlarge", 50, max_wait_hours=30)
    sent: list[dict[str, Any]] = []
    place.client.sagemaker = _Recording(sent)
    place.client.create_training_job(**training_request(place, TrainingJob(LINEAR, dataset_folder)))
    [request] = sent
    assert request["RoleArn"] == f"arn:aws:iam::{ACCOUNT}:role/stockpicker-sagemaker-execution"
    image = request["AlgorithmSpecification"]["TrainingImage"]
    assert image == f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/stockpicker:latest"
    assert request["EnableNetworkIsolation"] is True
    assert request["VpcConfig"] == {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    assert request["OutputDataConfig"]["KmsKeyId"] == "alias/mine"
    resources = {"InstanceType": "ml.c5.2xlarge", "InstanceCount": 1, "VolumeSizeInGB": 50}
    assert request["ResourceConfig"] == {**resources, "VolumeKmsKeyId": "alias/mine"}
    assert request["EnableManagedSpotTraining"] is True
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 86_400, "MaxWaitTimeInSeconds": 108_000}
    assert request["CheckpointConfig"]["S3Uri"].startswith(f"s3://{place.bucket}/jobs/checkpoints/")
    tags = {tag["Key"]: tag["Value"] for tag in request["Tags"]}
    assert tags == {"stockpicker": "stockpicker", "stockpicker:strategy": "mine", "stockpicker:period": "2023-06-01"}
    sent.clear()
    model = StoredModel("0123456789abcdef", "mine", "2023-06-01", ("one",), date(2023, 5, 31))
    folder = ModelFolder(place, "research", model.model_id)
    hows: tuple[How, How] = ("transform", "serverless")
    for how in hows:
        scoring = Scoring(place, model, folder, f"{folder.location}/model/model.tar.gz", how, "0" * 64)
        place.client.create_model(**scoring.model_request())
        place.client.create_endpoint_config(**scoring.endpoint_config_request())
    place.client.create_transform_job(**scoring.transform_request(1, f"{folder.location}/rows.csv"))
    alone, on_machine, served, serverless, transform = sent
    assert (alone["EnableNetworkIsolation"], alone["VpcConfig"]["SecurityGroupIds"]) == (True, ["sg-1"])
    # Serverless inference knows neither isolation nor a VPC, and has no disks of its own.
    assert (served["EnableNetworkIsolation"], "VpcConfig" in served, "KmsKeyId" in serverless) == (False, False, False)
    assert on_machine["KmsKeyId"] == transform["TransformOutput"]["KmsKeyId"] == "alias/mine"
    assert transform["TransformResources"]["VolumeKmsKeyId"] == "alias/mine"
    for request in sent:
        tags = {tag["Key"]: tag["Value"] for tag in request["Tags"]}
        mine = {"stockpicker": "stockpicker", "stockpicker:purpose": "scoring", "stockpicker:strategy": "mine"}
        assert tags == mine
    monkeypatch.delenv("STOCKPICKER_AWS_SECURITY_GROUPS")
    with pytest.raises(InvalidInput, match="are set together, or neither is"):
        place.client.create_training_job(**training_request(place, TrainingJob(LINEAR, dataset_folder)))


class _Recording:
    exceptions = ClientError

    def __init__(self, sent: list[dict[str, Any]]) -> None:
        self.sent = sent
        self.exceptions = type("Exceptions", (), {"ClientError": ClientError})

    def __getattr__(self, operation: str) -> Any:
        return lambda **request: self.sent.append(request)


def test_what_sagemaker_would_refuse_is_refused_before_it_is_sent(account: FaultyProxy, dataset_folder: Path) -> None:
    place = SageMakerPlatform("ml.x1.large")
    with pytest.raises(PlatformFailure, match=r"InstanceType 'ml\.x1\.large' is not allowed; allowed: ml\."):
        train_on(place, TrainingJob(LINEAR, dataset_folder))
    assert list(account.requests("CreateTrainingJob")) == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("ResourceLimitExceeded", "quota does not allow this job.*name another instance_type"),
        ("AccessDeniedException", "the platform sagemaker refused"),
    ],
)
def test_a_refused_creation_is_one_sentence(code: str, said: str, account: FaultyProxy, dataset_folder: Path) -> None:
    account.fail(Fault("CreateTrainingJob", "answer", 99, 400, code, "the account-level service limit"))
    with pytest.raises(PlatformFailure, match=said):
        train_on(SageMakerPlatform(), TrainingJob(LINEAR, dataset_folder))


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("AlgorithmError: the label is constant", "failed: AlgorithmError: the label is constant"),
        ("CapacityError: Unable to provision requested ML compute capacity", "CapacityError"),
    ],
)
def test_the_reason_of_a_failed_job_is_passed_on_and_capacity_is_asked_for_again(
    reason: str, said: str, account: FaultyProxy, dataset_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, job = SageMakerPlatform(), TrainingJob(LINEAR, dataset_folder)
    real = place.client.sagemaker.describe_training_job

    def failed(**named: Any) -> Any:
        return {**real(**named), "TrainingJobStatus": "Failed", "FailureReason": reason}

    monkeypatch.setattr(place.client.sagemaker, "describe_training_job", failed)
    with pytest.raises(PlatformFailure, match=said):
        train_on(place, job)
    attempts = 3 if reason.startswith("CapacityError") else 1
    assert len(account.requests("CreateTrainingJob")) == attempts


def test_throttled_requests_are_repeated(account: FaultyProxy, dataset_folder: Path) -> None:
    place, job = SageMakerPlatform(), TrainingJob(LINEAR, dataset_folder)
    bundle = _upload_model(place, job, dataset_folder)
    account.fail(Fault("TrainingJob", "answer", 3, 400, "ThrottlingException", "Rate exceeded"))
    assert train_on(place, job).bundle == bundle


def test_a_cancelled_wait_stops_the_job(
    account: FaultyProxy, dataset_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, job = SageMakerPlatform(), TrainingJob(LINEAR, dataset_folder)
    place.client.create_training_job(**training_request(place, job))

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(place, "read_log", interrupted)
    name = job.name(1, cast(Platform, place))
    with Stubber(place.client.sagemaker) as stubber:
        described = {"TrainingJobName": name, "TrainingJobStatus": "InProgress"}
        needed = {
            "TrainingJobArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/{name}",
            "ModelArtifacts": {"S3ModelArtifacts": "s3://b/m"},
            "SecondaryStatus": "Training",
            "AlgorithmSpecification": {"TrainingInputMode": "File"},
            "ResourceConfig": place.training_resources,
            "StoppingCondition": {},
            "CreationTime": 0,
        }
        stubber.add_response("describe_training_job", {**described, **needed})
        stubber.add_response("stop_training_job", {}, {"TrainingJobName": name})
        with pytest.raises(KeyboardInterrupt):
            train_on(place, job)
        stubber.assert_no_pending_responses()


def test_the_log_of_a_job_is_read_once_line_by_line(account: FaultyProxy) -> None:
    place, logs = SageMakerPlatform(), client("logs")
    group = "/aws/sagemaker/TrainingJobs"
    assert place.read_log("job") == ([], "{}")
    logs.create_log_group(logGroupName=group)
    for stream in ("job/algo-1", "job-2/algo-1"):
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
    now = round(time.time() * 1000)

    def write(*lines: str) -> None:
        events = [{"timestamp": now, "message": line} for line in lines]
        logs.put_log_events(logGroupName=group, logStreamName="job/algo-1", logEvents=events)

    write("one", "two")
    lines, position = place.read_log("job")
    assert lines == ["one", "two"]
    assert place.read_log("job", position)[0] == []
    write("three")
    assert place.read_log("job", position)[0] == ["three"]
    assert place.read_log("job-2")[0] == []


def test_equal_content_is_staged_once_and_only_our_own_is_touched(account: FaultyProxy, tmp_path: Path) -> None:
    place = SageMakerPlatform()
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    (folder / "b").write_bytes(b"2")
    first = place.stage(folder, "work")
    account.forget()
    assert place.stage(folder, "work") == first
    assert list(account.requests("^PUT")) == []
    bucket, key = first.removeprefix("s3://").split("/", 1)
    assert client("s3").get_object(Bucket=bucket, Key=f"{key}/b")["Body"].read() == b"2"
    (folder / "b").write_bytes(b"3")
    second = place.stage(folder, "work")
    assert second != first
    # What is brought for one work is nobody else's: it goes when that is done.
    others = place.stage(folder, "work-2")
    assert others != second
    place.unstage("work")
    left = [each["Key"] for each in client("s3").list_objects_v2(Bucket=bucket, Prefix="staged/")["Contents"]]
    assert {f"s3://{bucket}/{name}".rpartition("/")[0] for name in left} == {others}
    with pytest.raises(InvalidInput, match="is not there"):
        place.stage(tmp_path / "none", "work")
    client("s3").put_object(Bucket=bucket, Key="jobs/scores/x.out", Body=b"0.5")
    assert place.listed(f"{place.output}/scores") == [f"{place.output}/scores/x.out"]
    assert place.fetch(f"{place.output}/scores/x.out") == b"0.5"
    place.remove(f"{place.output}/scores")
    assert place.listed(f"{place.output}/scores") == []
    for foreign in (f"s3://{bucket}/staged/x", "s3://other/jobs/x", f"{place.output}/../staged/x", place.output):
        with pytest.raises(PlatformFailure, match="is not below"):
            place.remove(foreign)


def test_it_needs_the_deployment_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STOCKPICKER_DEPLOYMENT", raising=False)
    with pytest.raises(InvalidInput, match="set STOCKPICKER_DEPLOYMENT=aws"):
        platform("sagemaker")


def test_the_names_of_the_buckets_are_those_of_cold_start(account: FaultyProxy) -> None:
    assert SageMakerPlatform().bucket == aws_settings().data_for_training


def test_the_image_begins_the_container_so_that_signals_reach_it() -> None:
    dockerfile = Path(__file__).resolve().parents[3] / "deploy" / "training.Dockerfile"
    [entrypoint] = [line for line in dockerfile.read_text().splitlines() if line.startswith("ENTRYPOINT")]
    program, flag, module = json.loads(entrypoint.removeprefix("ENTRYPOINT"))
    assert (program, flag) == ("python", "-m")
    assert importlib.util.find_spec(f"{module}.__main__") is not None


def test_an_upload_that_fails_says_why_and_leaves_nothing(account: FaultyProxy, dataset_folder: Path) -> None:
    place = SageMakerPlatform()
    for fault, said in (
        (Fault("^PUT", "answer", 99, 403, "AccessDenied", "not yours"), "a bucket of another account answers so, too"),
        (Fault("^PUT", "answer", 99, 400, "KMS.DisabledException", "key"), "the KMS key is disabled: enable it"),
        (Fault("^PUT", "answer", 99, 400, "ExpiredToken", "old"), "the credentials have expired: sign in again"),
        (Fault("^PUT", "reset", 99), "nothing is half-written: run again"),
    ):
        account.fail(fault)
        with pytest.raises(StockPickerError, match=said):
            train_on(place, TrainingJob(LINEAR, dataset_folder))
        with pytest.raises(StockPickerError, match=said):
            place.store(f"{place.custom_models}/research/0123456789abcdef/metadata.json", b"{}")
        assert account.requests("CreateTrainingJob") == []
        account.forget()
    written = [each["Key"] for each in client("s3").list_objects_v2(Bucket=place.bucket).get("Contents", ())]
    assert [key for key in written if not key.endswith("/")] == []


def test_an_upload_that_breaks_in_its_middle_is_sent_again(account: FaultyProxy) -> None:
    place, location = SageMakerPlatform(), "research/0123456789abcdef/inputs/rows.csv"
    account.fail(Fault("^PUT", "reset", 2), Fault("^PUT", "lose_answer", 1))
    place.store(f"{place.custom_models}/{location}", b"x" * 3_000_000)
    assert place.fetch(f"{place.custom_models}/{location}") == b"x" * 3_000_000
