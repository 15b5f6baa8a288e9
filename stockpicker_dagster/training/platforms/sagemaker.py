"""SageMaker as a platform: jobs in the account of the deployment `aws`, by boto3.

Every request is checked against botocore's model and our stricter rules before it is sent, marked with the deployment's
tag, kept from the network, and encrypted as the lake is. Where jobs run (image, role, bucket, subnets) comes from the
environment; which machine they run on is the strategy's.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.home import home
from stockpicker_dagster.storage.aws.clients import client
from stockpicker_dagster.storage.aws.errors import asking, code_of
from stockpicker_dagster.storage.aws.policies import execution_role
from stockpicker_dagster.storage.aws.settings import AwsSettings, aws_settings, on_aws
from stockpicker_dagster.storage.places.s3 import Encryption, S3Place
from stockpicker_dagster.training.platforms import Answer, PlatformFailure
from stockpicker_dagster.training.platforms.validation import validate_request

IMAGE = "STOCKPICKER_TRAINING_IMAGE"
SUBNETS, SECURITY_GROUPS = "STOCKPICKER_AWS_SUBNETS", "STOCKPICKER_AWS_SECURITY_GROUPS"
_LOGS = "/aws/sagemaker/TrainingJobs"
_MOST_LINES = 10_000


class SageMakerPlatform:
    """Trains on `instance_type` in the account; see `Platform`.

    `max_wait_hours` asks for spot capacity, which may take that long in all; a job that is interrupted goes on from its
    checkpoint. Raises `InvalidInput` where the deployment is not `aws`.
    """

    name = "sagemaker"
    poll_seconds = 10.0
    longest_poll_seconds = 60.0

    def __init__(
        self, instance_type: str = "ml.m5.xlarge", volume_gb: int = 30, max_wait_hours: float | None = None
    ) -> None:
        if not on_aws():
            raise InvalidInput("platform 'sagemaker' needs an AWS account; set STOCKPICKER_DEPLOYMENT=aws")
        settings = aws_settings()
        self.bucket = settings.data_for_training
        self.image = os.environ.get(IMAGE) or default_image(settings)
        self.role = execution_role(settings)
        self.output = f"s3://{self.bucket}/jobs"
        self.client: Any = CheckedClient(client("sagemaker"), settings, max_wait_hours)
        self.runtime = client("sagemaker-runtime")
        self.training_resources: dict[str, Any] = {
            "InstanceType": instance_type,
            "InstanceCount": 1,
            "VolumeSizeInGB": volume_gb,
        }
        self.hosting_resources: dict[str, Any] = {"InstanceType": instance_type, "InitialInstanceCount": 1}
        self.transform_resources: dict[str, Any] = {"InstanceType": instance_type, "InstanceCount": 1}
        cache, encryption = home().root / "s3_cache", Encryption(settings.kms_key)
        self._jobs = S3Place(client("s3"), self.bucket, "jobs", settings.account, cache, encryption)
        self._staged = S3Place(client("s3"), self.bucket, "staged", settings.account, cache, encryption)

    def stage(self, source: Path) -> str:
        """The URI of an object, or of a folder of objects, with the content of `source`, named by that content."""
        if not source.exists():
            raise InvalidInput(f"{source} is not there, and cannot be given to a job")
        files = sorted(source.rglob("*")) if source.is_dir() else [source]
        contents = {path.relative_to(source.parent).as_posix(): path.read_bytes() for path in files if path.is_file()}
        digest = hashlib.sha256()
        for name, content in contents.items():
            digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
        at = digest.hexdigest()[:32]
        there = self._staged.listed(at)
        self._staged.write({f"{at}/{name}": content for name, content in contents.items() if name not in there})
        return f"s3://{self.bucket}/staged/{at}/{source.name}"

    def fetch(self, location: str) -> bytes:
        """The content of one object that a job wrote."""
        content = self._jobs.read(self._within(location))
        if content is None:
            raise PlatformFailure(f"{location} is not there; look at the job's log for the reason")
        return content

    def listed(self, location: str) -> list[str]:
        """The URIs of all objects below a prefix, ascending."""
        folder = self._within(location)
        return [f"{self.output}/{folder}/{name}" for name in sorted(self._jobs.listed(folder))]

    def remove(self, location: str) -> None:
        """Removes an object, or everything below a prefix. Versions stay for as long as the bucket keeps them."""
        folder = self._within(location)
        self._jobs.remove([folder, *(f"{folder}/{name}" for name in self._jobs.listed(folder))])

    def read_log(self, job: str, position: str | None = None) -> tuple[list[str], str]:
        """New lines of the job's CloudWatch streams; the position is a token for each stream."""
        logs = client("logs")
        lines: list[str] = []
        tokens: dict[str, str] = json.loads(position) if position else {}
        with asking(f"the log of {job} was to be read"):
            try:
                found = logs.describe_log_streams(logGroupName=_LOGS, logStreamNamePrefix=f"{job}/")["logStreams"]
            except logs.exceptions.ResourceNotFoundException:
                found = []
            for name in sorted(each["logStreamName"] for each in found):
                while len(lines) < _MOST_LINES:
                    token = {"nextToken": tokens[name]} if name in tokens else {}
                    page = logs.get_log_events(logGroupName=_LOGS, logStreamName=name, startFromHead=True, **token)
                    lines += [event["message"] for event in page["events"]]
                    if page["nextForwardToken"] == tokens.get(name):
                        break
                    tokens[name] = page["nextForwardToken"]
        return lines, json.dumps(tokens, sort_keys=True)

    def _within(self, location: str) -> str:
        """The name below `output` that a URI means. Raises `PlatformFailure` for what is not ours to touch."""
        parts = urlsplit(location)
        name = parts.path.strip("/").removeprefix("jobs/")
        ours = parts.scheme == "s3" and parts.netloc == self.bucket and parts.path.startswith("/jobs/")
        if not ours or not name or ".." in name.split("/"):
            raise PlatformFailure(f"{location} is not below {self.output}, where jobs write")
        return name


class CheckedClient:
    """boto3's client of SageMaker, whose creations are completed with what the deployment demands, and checked."""

    def __init__(self, sagemaker: Any, settings: AwsSettings, max_wait_hours: float | None = None) -> None:
        self.sagemaker = sagemaker
        self.settings = settings
        self.max_wait_hours = max_wait_hours

    def __getattr__(self, operation: str) -> Any:
        call = getattr(self.sagemaker, operation)
        if not operation.startswith("create_"):
            return call
        named = "".join(word.capitalize() for word in operation.split("_"))

        def checked(**request: Any) -> Answer:
            completed = self._completed(named, request)
            validate_request(named, completed)
            try:
                answer: Answer = call(**completed)
            except self.sagemaker.exceptions.ClientError as error:
                if code_of(error) == "ResourceLimitExceeded":
                    raise PlatformFailure(
                        f"the account's quota does not allow this job ({error}); raise it in Service Quotas, or name "
                        "another instance_type under training"
                    ) from error
                raise
            return answer

        return checked

    def _completed(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """The request with tags, encryption, network and spot capacity of this deployment."""
        ours = {**{tag["Key"]: tag["Value"] for tag in request.get("Tags") or []}, **self.settings.tags}
        completed = {**request, "Tags": [{"Key": key, "Value": value} for key, value in ours.items()]}
        if operation in ("CreateTrainingJob", "CreateModel"):
            completed |= _network()
        if operation == "CreateProcessingJob":
            completed["NetworkConfig"] = _network()
            if key := self.settings.kms_key:
                resources = request["ProcessingResources"]["ClusterConfig"]
                completed["ProcessingResources"] = {"ClusterConfig": {**resources, "VolumeKmsKeyId": key}}
                completed["ProcessingOutputConfig"] = {**request["ProcessingOutputConfig"], "KmsKeyId": key}
        if operation == "CreateTrainingJob":
            key = self.settings.kms_key
            if key:
                completed["OutputDataConfig"] = {**request["OutputDataConfig"], "KmsKeyId": key}
                completed["ResourceConfig"] = {**request["ResourceConfig"], "VolumeKmsKeyId": key}
            if self.max_wait_hours is not None:
                wait = round(3600 * self.max_wait_hours)
                completed["EnableManagedSpotTraining"] = True
                completed["StoppingCondition"] = {**request["StoppingCondition"], "MaxWaitTimeInSeconds": wait}
        return completed


def _network() -> dict[str, Any]:
    """Jobs reach nothing, from within the deployment's network where it has one."""
    subnets, groups = _listed(SUBNETS), _listed(SECURITY_GROUPS)
    if bool(subnets) != bool(groups):
        raise InvalidInput(f"{SUBNETS} and {SECURITY_GROUPS} are set together, or neither is")
    within = {"VpcConfig": {"Subnets": subnets, "SecurityGroupIds": groups}} if subnets else {}
    return {"EnableNetworkIsolation": True, **within}


def _listed(variable: str) -> list[str]:
    return [each for each in os.environ.get(variable, "").split(",") if each]


def default_image(settings: AwsSettings) -> str:
    """Our own image in the account's registry, under the deployment's prefix."""
    world = "amazonaws.com.cn" if settings.region.startswith("cn-") else "amazonaws.com"
    return f"{settings.account}.dkr.ecr.{settings.region}.{world}/{settings.prefix}:latest"
