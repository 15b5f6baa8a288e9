"""SageMaker as a platform: jobs in the account of the deployment `aws`, by boto3.

Every request is checked against botocore's model and our stricter rules before it is sent, marked with the deployment's
tag, kept from the network, and encrypted as the lake is. Where jobs run (image, role, bucket, subnets) comes from the
environment; which machine they run on is the strategy's.
"""

import hashlib
import logging
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.home import home
from stockpicker_dagster.storage.aws.clients import client
from stockpicker_dagster.storage.aws.errors import code_of
from stockpicker_dagster.storage.aws.policies import execution_role
from stockpicker_dagster.storage.aws.settings import CUSTOM_MODELS, STAGED, AwsSettings, aws_settings, on_aws
from stockpicker_dagster.storage.places.s3 import Encryption, S3Place
from stockpicker_dagster.training.platforms import Answer, PlatformFailure
from stockpicker_dagster.training.platforms.cloudwatch import new_lines
from stockpicker_dagster.training.platforms.jobs import JobKind
from stockpicker_dagster.training.platforms.validation import validate_request

_log = logging.getLogger(__name__)
IMAGE = "STOCKPICKER_TRAINING_IMAGE"
SUBNETS, SECURITY_GROUPS = "STOCKPICKER_AWS_SUBNETS", "STOCKPICKER_AWS_SECURITY_GROUPS"


class SageMakerPlatform:
    """Trains on `instance_type` in the account, and scores on `scoring_instance_type`; see `Platform`.

    `max_wait_hours` asks for spot capacity, which may take that long in all; a job that is interrupted goes on from its
    checkpoint. Raises `InvalidInput` where the deployment is not `aws`.
    """

    name = "sagemaker"
    poll_seconds = 10.0
    longest_poll_seconds = 60.0

    def __init__(
        self,
        instance_type: str = "ml.m5.xlarge",
        volume_gb: int = 30,
        max_wait_hours: float | None = None,
        scoring_instance_type: str = "ml.m5.xlarge",
    ) -> None:
        if not on_aws():
            raise InvalidInput("platform 'sagemaker' needs an AWS account; set STOCKPICKER_DEPLOYMENT=aws")
        settings = aws_settings()
        self.bucket = settings.data_for_training
        self.image = os.environ.get(IMAGE) or default_image(settings)
        self.role = execution_role(settings)
        self.output = f"s3://{self.bucket}/jobs"
        self.custom_models = f"s3://{self.bucket}/{CUSTOM_MODELS}"
        self.marks = settings.tags
        self.client: Any = CheckedClient(client("sagemaker"), settings, max_wait_hours)
        self.runtime = client("sagemaker-runtime")
        self.training_resources: dict[str, Any] = {
            "InstanceType": instance_type,
            "InstanceCount": 1,
            "VolumeSizeInGB": volume_gb,
        }
        self.hosting_resources: dict[str, Any] = {"InstanceType": scoring_instance_type, "InitialInstanceCount": 1}
        self.transform_resources: dict[str, Any] = {"InstanceType": scoring_instance_type, "InstanceCount": 1}
        cache, encryption = home().root / "s3_cache", Encryption(settings.kms_key)
        self._places = {
            name: S3Place(client("s3"), self.bucket, name, settings.account, cache, encryption)
            for name in ("jobs", CUSTOM_MODELS, STAGED)
        }

    def stage(self, source: Path, work: str) -> str:
        """The URI of an object, or of a folder of objects, with the content of `source`, named by work and content."""
        if not source.exists():
            raise InvalidInput(f"{source} is not there, and cannot be given to a job")
        files = sorted(source.rglob("*")) if source.is_dir() else [source]
        contents = {path.relative_to(source.parent).as_posix(): path.read_bytes() for path in files if path.is_file()}
        digest = hashlib.sha256()
        for name, content in contents.items():
            digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
        at = f"{work}/{digest.hexdigest()[:32]}"
        there = self._places[STAGED].listed(at)
        self._places[STAGED].write({f"{at}/{name}": content for name, content in contents.items() if name not in there})
        return f"s3://{self.bucket}/{STAGED}/{at}/{source.name}"

    def unstage(self, work: str) -> None:
        """Removes the objects; the bucket's lifecycle takes those of work that was given up."""
        place = self._places[STAGED]
        try:
            place.remove([f"{work}/{name}" for name in place.listed(work)])
        except StockPickerError as error:
            # The work is done, whatever becomes of this.
            _log.warning("what was staged for %s stays for a month: %s", work, error)

    def store(self, location: str, content: bytes) -> None:
        """Puts one object, whole."""
        place, name = self._within(location)
        place.write({name: content})

    def fetch(self, location: str) -> bytes:
        """The content of one object."""
        place, name = self._within(location)
        content = place.read(name)
        if content is None:
            raise PlatformFailure(f"{location} is not there; look at the job's log for the reason")
        return content

    def listed(self, location: str) -> list[str]:
        """The URIs of all objects below a prefix, ascending."""
        place, folder = self._within(location)
        return [f"s3://{self.bucket}/{place.prefix}/{folder}/{name}" for name in sorted(place.listed(folder))]

    def remove(self, location: str) -> None:
        """Removes an object, or everything below a prefix. Versions stay for as long as the bucket keeps them."""
        place, folder = self._within(location)
        place.remove([folder, *(f"{folder}/{name}" for name in place.listed(folder))])

    def read_log(self, job: str, position: str | None = None, kind: str = "training") -> tuple[list[str], str]:
        """New lines of the job's CloudWatch streams; the position is a token for each stream."""
        return new_lines(client("logs"), JobKind(kind), job, position)

    def _within(self, location: str) -> tuple[S3Place, str]:
        """Where a URI lies, and its name there. Raises `PlatformFailure` for what is not ours to touch."""
        parts = urlsplit(location)
        folder, _, name = parts.path.strip("/").partition("/")
        ours = parts.scheme == "s3" and parts.netloc == self.bucket and folder in ("jobs", CUSTOM_MODELS)
        if not ours or not name or ".." in name.split("/"):
            raise PlatformFailure(f"{location} is not below {self.output} or {self.custom_models}, where jobs write")
        return self._places[folder], name


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
        # A model that is served without a server of its own has neither isolation nor a VPC, and says so itself.
        if operation in ("CreateTrainingJob", "CreateModel") and request.get("EnableNetworkIsolation", True):
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
        if operation == "CreateTransformJob" and self.settings.kms_key:
            key = self.settings.kms_key
            completed["TransformOutput"] = {**request["TransformOutput"], "KmsKeyId": key}
            completed["TransformResources"] = {**request["TransformResources"], "VolumeKmsKeyId": key}
        if operation == "CreateEndpointConfig" and self.settings.kms_key:
            # A key is for the disks of instances; what is serverless has none.
            serverless = any("ServerlessConfig" in variant for variant in request["ProductionVariants"])
            completed |= {} if serverless else {"KmsKeyId": self.settings.kms_key}
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
