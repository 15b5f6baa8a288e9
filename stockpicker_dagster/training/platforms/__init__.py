"""Where models are trained, served and applied in bulk: one protocol, in the language of boto3's SageMaker client.

A platform runs the code of `training.container` and nothing else. Every platform takes the same request dictionaries,
answers the same dictionaries and raises the same `botocore.exceptions.ClientError`s, so that what is tried on this
machine is what is sent to AWS. What differs lies in `Platform`: where files go, which image and role a request names,
and how often it is polite to ask. Requests are built in `requests`, checked in `validation`, followed in `following`.
"""

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.storage.aws.settings import on_aws

Answer = dict[str, Any]
"""What boto3 would return, without `ResponseMetadata`; moments are time-zone-aware `datetime`s."""

_PLATFORMS = {
    "local": ("stockpicker_dagster.training.platforms.local", "LocalPlatform"),
    "sagemaker": ("stockpicker_dagster.training.platforms.sagemaker", "SageMakerPlatform"),
}
"""Module and class of each platform, by name; the module is imported only when asked for."""
PLATFORM = "STOCKPICKER_TRAINING_PLATFORM"
"""Names the platform of strategies that name none themselves."""


class PlatformFailure(StockPickerError):
    """A platform did not do what it was asked; the message says what it gave as the reason."""


class SageMakerClient(Protocol):
    """The operations of `boto3.client("sagemaker")` that we use, with boto3's keyword arguments and answers.

    Requests that SageMaker would refuse raise `ClientError` with its code: `ValidationException` for what is malformed
    or, for describing and stopping, not there; `ResourceInUse` for a second job of one name; `ValidationException`
    "Cannot create already existing ..." for a second model, configuration or endpoint; `ResourceLimitExceeded` for a
    quota. `errors.is_missing` and `errors.already_exists` tell them apart.
    """

    def create_training_job(self, **request: Any) -> Answer: ...
    def describe_training_job(self, *, TrainingJobName: str) -> Answer: ...
    def stop_training_job(self, *, TrainingJobName: str) -> Answer: ...
    def list_training_jobs(self, **request: Any) -> Answer: ...

    def create_model(self, **request: Any) -> Answer: ...
    def describe_model(self, *, ModelName: str) -> Answer: ...
    def delete_model(self, *, ModelName: str) -> Answer: ...
    def list_models(self, **request: Any) -> Answer: ...

    def create_endpoint_config(self, **request: Any) -> Answer: ...
    def describe_endpoint_config(self, *, EndpointConfigName: str) -> Answer: ...
    def delete_endpoint_config(self, *, EndpointConfigName: str) -> Answer: ...
    def list_endpoint_configs(self, **request: Any) -> Answer: ...

    def create_endpoint(self, **request: Any) -> Answer: ...
    def describe_endpoint(self, *, EndpointName: str) -> Answer: ...
    def delete_endpoint(self, *, EndpointName: str) -> Answer: ...
    def list_endpoints(self, **request: Any) -> Answer: ...

    def create_transform_job(self, **request: Any) -> Answer: ...
    def describe_transform_job(self, *, TransformJobName: str) -> Answer: ...
    def stop_transform_job(self, *, TransformJobName: str) -> Answer: ...
    def list_transform_jobs(self, **request: Any) -> Answer: ...

    def create_processing_job(self, **request: Any) -> Answer: ...
    def describe_processing_job(self, *, ProcessingJobName: str) -> Answer: ...
    def stop_processing_job(self, *, ProcessingJobName: str) -> Answer: ...
    def list_processing_jobs(self, **request: Any) -> Answer: ...

    def add_tags(self, *, ResourceArn: str, Tags: Sequence[dict[str, str]]) -> Answer: ...
    def list_tags(self, *, ResourceArn: str) -> Answer: ...


class RuntimeClient(Protocol):
    """The one operation of `boto3.client("sagemaker-runtime")` that we use."""

    def invoke_endpoint(
        self, *, EndpointName: str, Body: bytes, ContentType: str = ..., Accept: str = ..., **request: Any
    ) -> Answer:
        """`Body` of the answer is a stream with `read()`.

        Raises `ClientError`: `ValidationError` for an endpoint that does not exist or a body above 6,291,456 bytes,
        `ModelError` with `OriginalStatusCode` and `OriginalMessage` where the container refused.
        """


class Jobs(Protocol):
    """What runs jobs, and says how they go; all that following them needs.

    `poll_seconds` is how long to wait before asking a second time; later questions wait longer, up to
    `longest_poll_seconds`.
    """

    name: str
    client: Any
    poll_seconds: float
    longest_poll_seconds: float

    def read_log(self, job: str, position: str | None = None, kind: str = "training") -> tuple[list[str], str]:
        """The lines that a job wrote to its log after `position` (None: from its start), and the new one.

        `kind` is one of `jobs`, such as `transform`. A job without a log, or one that does not exist, has no lines.
        """


class Platform(Jobs, Protocol):
    """A place to train, with what a request must name there.

    `training_resources` and `hosting_resources` are `ResourceConfig` and the part of a production variant that says
    what it runs on; `transform_resources` is `TransformResources`.
    """

    client: SageMakerClient
    runtime: RuntimeClient
    image: str
    """What `TrainingImage` and `Image` name: the image that holds `training.container`."""
    role: str
    """What `RoleArn` and `ExecutionRoleArn` name."""
    output: str
    """The URI, without a slash at its end, under which jobs write models, checkpoints and scores."""
    custom_models: str
    """The URI, without a slash at its end, under which models have their folders, `<owner>/<model-id>/`."""
    marks: dict[str, str]
    """Tags that everything of this deployment carries, beside those of a request."""
    training_resources: dict[str, Any]
    hosting_resources: dict[str, Any]
    transform_resources: dict[str, Any]

    def stage(self, source: Path, work: str) -> str:
        """The URI under which the jobs of `work` can read a file or a folder of this machine, brought there if need be.

        Equal content gives an equal URI for the same work, and is not brought a second time. Nobody else reads it.
        """

    def unstage(self, work: str) -> None:
        """Removes what was brought for `work`, which is done. What is left otherwise goes after a month."""

    def store(self, location: str, content: bytes) -> None:
        """Puts one file under `output` or `custom_models`; it is there whole, or not."""

    def fetch(self, location: str) -> bytes:
        """The content of one file under `output` or `custom_models`. Raises `PlatformFailure` if it is not there."""

    def listed(self, location: str) -> list[str]:
        """The URIs of all files in a folder under `output` or `custom_models`, ascending; empty if there is none."""

    def remove(self, location: str) -> None:
        """Removes a file or a folder under `output` or `custom_models`, such as checkpoints no longer needed."""


def platform(name: str, **settings: Any) -> Platform:
    """The platform of that name; `settings` are its own. An unknown name raises `InvalidInput`, listing those known."""
    if name not in _PLATFORMS:
        raise InvalidInput(f"platform {name!r} is unknown; known: {', '.join(sorted(_PLATFORMS))}")
    module, attribute = _PLATFORMS[name]
    return cast(Platform, getattr(import_module(module), attribute)(**settings))


def default_platform() -> Literal["local", "sagemaker"]:
    """The platform of strategies that name none: SageMaker on `aws`, unless the environment says otherwise.

    Raises `InvalidInput` for a platform that is unknown, or not to be had in this deployment.
    """
    named = os.environ.get(PLATFORM) or ("sagemaker" if on_aws() else "local")
    if named == "local":
        return "local"
    if named != "sagemaker":
        raise InvalidInput(f"{PLATFORM}={named!r} is unknown; known: {', '.join(sorted(_PLATFORMS))}")
    if not on_aws():
        raise InvalidInput(f"{PLATFORM}=sagemaker needs an AWS account; set STOCKPICKER_DEPLOYMENT=aws")
    return "sagemaker"


def platforms_of_deployment() -> list[Platform]:
    """Every platform that strategies of this deployment can name: this machine, and on `aws` SageMaker before it."""
    return [*([platform("sagemaker")] if on_aws() else []), platform("local")]
