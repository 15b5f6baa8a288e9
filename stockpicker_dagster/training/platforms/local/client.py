"""SageMaker's operations on this machine, by boto3's names, dictionaries and errors.

State lies under one folder; processes that are started here are supervised by others that outlive this one. Whoever
describes a thing whose supervisor was killed learns that it failed, and ends what is left of it.
"""

import io
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.training.container.layout import ENDPOINT_BODY
from stockpicker_dagster.training.platforms import Answer
from stockpicker_dagster.training.platforms.errors import client_error
from stockpicker_dagster.training.platforms.local import endpoints, processing_jobs, training_jobs, transform_jobs
from stockpicker_dagster.training.platforms.local.filters import ColumnFilter
from stockpicker_dagster.training.platforms.local.locations import path_of
from stockpicker_dagster.training.platforms.local.processes import ProcessId
from stockpicker_dagster.training.platforms.local.records import (
    INTERNAL,
    BrokenRecord,
    NameTaken,
    Record,
    Records,
    answered,
    now,
)
from stockpicker_dagster.training.platforms.local.serving import ask
from stockpicker_dagster.training.platforms.local.supervisor import launch
from stockpicker_dagster.training.platforms.validation import validate_request

SCHEMES = ("file",)
ARN = "arn:aws:sagemaker:local:000000000000"
KEPT_SECONDS = 30 * 86_400
"""So long after its last change a job that has ended is kept."""
LOST = "InternalServerError: the process that supervised it was killed; start it again"
"""Why a job failed whose supervisor is gone."""


class LocalClient:
    """`boto3.client("sagemaker")` and `boto3.client("sagemaker-runtime")` in one, on this machine."""

    def __init__(self, root: Path, image: str, stop_seconds: float = 120) -> None:
        self._image = image
        self._stop_seconds = stop_seconds
        kinds = ("training-jobs", "transform-jobs", "processing-jobs", "models", "endpoint-configs", "endpoints")
        self._kept = {kind: Records(root / kind) for kind in kinds}

    # Training

    def create_training_job(self, **request: Any) -> Answer:
        validate_request("CreateTrainingJob", request, SCHEMES)
        self._own_image("CreateTrainingJob", request["AlgorithmSpecification"].get("TrainingImage"))
        if "ResourceConfig" not in request or "StoppingCondition" not in request:
            raise client_error(
                "CreateTrainingJob", "ValidationException", "ResourceConfig and StoppingCondition are needed"
            )
        arn = f"{ARN}:training-job/{request['TrainingJobName']}"
        state = training_jobs.initial_state(request, arn, self._stop_seconds)
        self._begin("CreateTrainingJob", "training-jobs", request["TrainingJobName"], request, state)
        return {"TrainingJobArn": arn}

    def describe_training_job(self, *, TrainingJobName: str) -> Answer:
        record = self._job("DescribeTrainingJob", "training-jobs", TrainingJobName)
        return self._described(record, "TrainingJobStatus", training_jobs.ENDED)

    def stop_training_job(self, *, TrainingJobName: str) -> Answer:
        self._stop("StopTrainingJob", "training-jobs", TrainingJobName, "TrainingJobStatus")
        return {}

    def list_training_jobs(self, **request: Any) -> Answer:
        keys = ("TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingEndTime", "LastModifiedTime",
                "TrainingJobStatus", "SecondaryStatus")  # fmt: skip
        return self._list("ListTrainingJobs", "training-jobs", request, "TrainingJobSummaries", keys)

    # Models

    def create_model(self, **request: Any) -> Answer:
        validate_request("CreateModel", request, SCHEMES)
        container = request.get("PrimaryContainer") or {}
        self._own_image("CreateModel", container.get("Image"))
        if not container.get("ModelDataUrl"):
            raise client_error("CreateModel", "ValidationException", "PrimaryContainer.ModelDataUrl is needed")
        arn = f"{ARN}:model/{request['ModelName']}"
        with self._keep("CreateModel", "models", request["ModelName"], request, {"ModelArn": arn}):
            return {"ModelArn": arn}

    def describe_model(self, *, ModelName: str) -> Answer:
        return self._echo(self._thing("DescribeModel", "models", ModelName))

    def delete_model(self, *, ModelName: str) -> Answer:
        self._thing("DeleteModel", "models", ModelName).remove()
        return {}

    def list_models(self, **request: Any) -> Answer:
        return self._list("ListModels", "models", request, "Models", ("ModelName", "ModelArn", "CreationTime"))

    # Endpoints

    def create_endpoint_config(self, **request: Any) -> Answer:
        operation = "CreateEndpointConfig"
        validate_request(operation, request, SCHEMES)
        if len(request["ProductionVariants"]) != 1:
            raise client_error(operation, "ValidationException", "ProductionVariants must be one on this platform")
        self._thing(operation, "models", str(request["ProductionVariants"][0].get("ModelName")))
        arn = f"{ARN}:endpoint-config/{request['EndpointConfigName']}"
        state = {"EndpointConfigArn": arn}
        with self._keep(operation, "endpoint-configs", request["EndpointConfigName"], request, state):
            return {"EndpointConfigArn": arn}

    def describe_endpoint_config(self, *, EndpointConfigName: str) -> Answer:
        return self._echo(self._thing("DescribeEndpointConfig", "endpoint-configs", EndpointConfigName))

    def delete_endpoint_config(self, *, EndpointConfigName: str) -> Answer:
        self._thing("DeleteEndpointConfig", "endpoint-configs", EndpointConfigName).remove()
        return {}

    def list_endpoint_configs(self, **request: Any) -> Answer:
        keys = ("EndpointConfigName", "EndpointConfigArn", "CreationTime")
        return self._list("ListEndpointConfigs", "endpoint-configs", request, "EndpointConfigs", keys)

    def create_endpoint(self, **request: Any) -> Answer:
        operation = "CreateEndpoint"
        validate_request(operation, request, SCHEMES)
        config = self._thing(operation, "endpoint-configs", request["EndpointConfigName"])
        [variant] = config.request["ProductionVariants"]
        model = self._thing(operation, "models", variant["ModelName"]).request["PrimaryContainer"]
        arn = f"{ARN}:endpoint/{request['EndpointName']}"
        state = endpoints.initial_state(request, arn, variant, model)
        self._begin(operation, "endpoints", request["EndpointName"], request, state)
        return {"EndpointArn": arn}

    def describe_endpoint(self, *, EndpointName: str) -> Answer:
        record = self._thing("DescribeEndpoint", "endpoints", EndpointName)
        answer = self._described(record, "EndpointStatus", endpoints.ENDED)
        if record.asked_to_stop and answer["EndpointStatus"] != "Failed":
            answer["EndpointStatus"] = "Deleting"
        return answer

    def delete_endpoint(self, *, EndpointName: str) -> Answer:
        record = self._thing("DeleteEndpoint", "endpoints", EndpointName)
        record.ask_to_stop()
        if not record.supervised:
            with record.alone():
                self._end_what_is_left(record)
                record.remove()
        return {}

    def list_endpoints(self, **request: Any) -> Answer:
        keys = ("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus")
        return self._list("ListEndpoints", "endpoints", request, "Endpoints", keys)

    def invoke_endpoint(
        self, *, EndpointName: str, Body: bytes, ContentType: str = "", Accept: str = "", **request: Any
    ) -> Answer:
        operation = "InvokeEndpoint"
        record = self._kept["endpoints"].find(EndpointName)
        if record is None:
            raise client_error(operation, "ValidationError", f"Endpoint {EndpointName} of this machine not found.")
        content = Body if isinstance(Body, bytes | bytearray) else Body.read()
        if len(content) > ENDPOINT_BODY:
            said = f"Body has {len(content)} bytes; allowed: at most {ENDPOINT_BODY}"
            raise client_error(operation, "ValidationError", said)
        described = self.describe_endpoint(EndpointName=EndpointName)
        if described["EndpointStatus"] != "InService":
            raise client_error(
                operation, "ModelNotReadyException", f"Endpoint {EndpointName} is {described['EndpointStatus']}"
            )
        headers = {"Content-Type": ContentType, **({"Accept": Accept} if Accept else {})}
        try:
            port = record.state[INTERNAL]["port"]
            status, sent, body = ask(port, "POST", "/invocations", bytes(content), headers, timeout=60)
        except (OSError, KeyError, BrokenRecord) as error:
            raise client_error(operation, "ServiceUnavailable", f"the container did not answer: {error}") from error
        if status != 200:
            message = body.decode(errors="replace").strip()
            raise client_error(
                operation,
                "ModelError",
                f'Received client error ({status}) from primary with message "{message}".',
                OriginalStatusCode=status,
                OriginalMessage=message,
                LogStreamArn=str(record.log),
            )
        custom = sent.get("x-amzn-sagemaker-custom-attributes")
        return {
            "Body": io.BytesIO(body),
            "ContentType": sent.get("content-type", ""),
            "InvokedProductionVariant": described["ProductionVariants"][0]["VariantName"],
            **({"CustomAttributes": custom} if custom else {}),
        }

    # Transform

    def create_transform_job(self, **request: Any) -> Answer:
        operation = "CreateTransformJob"
        validate_request(operation, request, SCHEMES)
        processing = request.get("DataProcessing") or {}
        try:
            for name in ("InputFilter", "OutputFilter"):
                ColumnFilter(processing.get(name) or "$")
        except StockPickerError as error:
            raise client_error(operation, "ValidationException", str(error)) from error
        if request["TransformInput"].get("SplitType", "None") not in ("None", "Line"):
            raise client_error(operation, "ValidationException", "SplitType must be None or Line on this platform")
        model = self._thing(operation, "models", request["ModelName"]).request["PrimaryContainer"]
        arn = f"{ARN}:transform-job/{request['TransformJobName']}"
        state = transform_jobs.initial_state(request, arn, model)
        self._begin(operation, "transform-jobs", request["TransformJobName"], request, state)
        return {"TransformJobArn": arn}

    def describe_transform_job(self, *, TransformJobName: str) -> Answer:
        record = self._job("DescribeTransformJob", "transform-jobs", TransformJobName)
        answer = self._described(record, "TransformJobStatus", transform_jobs.ENDED)
        if record.asked_to_stop and answer["TransformJobStatus"] == "InProgress":
            answer["TransformJobStatus"] = "Stopping"
        return answer

    def stop_transform_job(self, *, TransformJobName: str) -> Answer:
        self._stop("StopTransformJob", "transform-jobs", TransformJobName, "TransformJobStatus")
        return {}

    def list_transform_jobs(self, **request: Any) -> Answer:
        keys = ("TransformJobName", "TransformJobArn", "CreationTime", "TransformEndTime", "LastModifiedTime",
                "TransformJobStatus", "FailureReason")  # fmt: skip
        return self._list("ListTransformJobs", "transform-jobs", request, "TransformJobSummaries", keys)

    # Processing

    def create_processing_job(self, **request: Any) -> Answer:
        operation = "CreateProcessingJob"
        validate_request(operation, request, SCHEMES)
        application = request["AppSpecification"]
        self._own_image(operation, application["ImageUri"])
        if "ContainerEntrypoint" not in application and len(application.get("ContainerArguments") or ()) != 1:
            raise client_error(operation, "ValidationException", "ContainerArguments must name one role of the image")
        if request["ProcessingResources"]["ClusterConfig"]["InstanceCount"] != 1:
            raise client_error(operation, "ValidationException", "InstanceCount must be 1 on this platform")
        arn = f"{ARN}:processing-job/{request['ProcessingJobName']}"
        state = processing_jobs.initial_state(arn)
        self._begin(operation, "processing-jobs", request["ProcessingJobName"], request, state)
        return {"ProcessingJobArn": arn}

    def describe_processing_job(self, *, ProcessingJobName: str) -> Answer:
        record = self._job("DescribeProcessingJob", "processing-jobs", ProcessingJobName)
        return self._described(record, "ProcessingJobStatus", processing_jobs.ENDED)

    def stop_processing_job(self, *, ProcessingJobName: str) -> Answer:
        self._stop("StopProcessingJob", "processing-jobs", ProcessingJobName, "ProcessingJobStatus")
        return {}

    def list_processing_jobs(self, **request: Any) -> Answer:
        keys = ("ProcessingJobName", "ProcessingJobArn", "CreationTime", "ProcessingEndTime", "LastModifiedTime",
                "ProcessingJobStatus", "FailureReason", "ExitMessage")  # fmt: skip
        return self._list("ListProcessingJobs", "processing-jobs", request, "ProcessingJobSummaries", keys)

    # Tags

    def add_tags(self, *, ResourceArn: str, Tags: Sequence[dict[str, str]]) -> Answer:
        record = self._of_arn("AddTags", ResourceArn)
        validate_request("AddTags", {"ResourceArn": ResourceArn, "Tags": list(Tags)}, SCHEMES)
        record.add_tags(Tags)
        return {"Tags": record.tags}

    def list_tags(self, *, ResourceArn: str) -> Answer:
        return {"Tags": self._of_arn("ListTags", ResourceArn).tags}

    # What they share

    def training_record(self, name: str) -> Record | None:
        """What is kept of a training job, its log among it."""
        return self.job_record("training", name)

    def job_record(self, kind: str, name: str) -> Record | None:
        """What is kept of a job of that kind, its log among it."""
        records = self._kept.get(f"{kind}-jobs")
        return None if records is None else records.find(name)

    def _begin(self, operation: str, kind: str, name: str, request: dict[str, Any], state: dict[str, Any]) -> None:
        """Keeps the record and has it supervised."""
        self._forget_old(kind)
        with self._keep(operation, kind, name, request, state) as record:
            if not launch(record.folder):
                record.remove()
                raise client_error(operation, "ServiceUnavailable", "no process could be started to supervise it")

    def _forget_old(self, kind: str) -> None:
        """Removes what ended long ago, with the model that it left; endpoints stay until they are deleted."""
        if kind == "endpoints":
            return
        for record in self._kept[kind].all():
            with suppress(OSError, StockPickerError):
                if now() - record.folder.stat().st_mtime < KEPT_SECONDS or not record.abandoned:
                    continue
                if kind == "training-jobs":
                    shutil.rmtree(path_of(training_jobs.model_uri(record.request)).parent.parent, ignore_errors=True)
                record.remove()

    @contextmanager
    def _keep(
        self, operation: str, kind: str, name: str, request: dict[str, Any], state: dict[str, Any]
    ) -> Iterator[Record]:
        with ExitStack() as stack:
            try:
                record = stack.enter_context(self._kept[kind].create(name, request, {"CreationTime": now(), **state}))
            except NameTaken as error:
                raise self._taken(operation, kind, name) from error
            except OSError as error:
                raise client_error(operation, "ResourceLimitExceeded", f"the disk refuses: {error}") from error
            yield record

    @staticmethod
    def _taken(operation: str, kind: str, name: str) -> ClientError:
        if kind.endswith("-jobs"):
            return client_error(operation, "ResourceInUse", f"Job name must be unique: {name} exists already")
        return client_error(
            operation, "ValidationException", f'Cannot create already existing {kind[:-1]} "{ARN}:{kind[:-1]}/{name}".'
        )

    def _job(self, operation: str, kind: str, name: str) -> Record:
        record = self._kept[kind].find(name)
        if record is None:
            raise client_error(operation, "ValidationException", "Requested resource not found.")
        return record

    def _thing(self, operation: str, kind: str, name: str) -> Record:
        record = self._kept[kind].find(name)
        if record is None:
            where = f"{ARN}:{kind[:-1]}/{name}"
            raise client_error(operation, "ValidationException", f'Could not find {kind[:-1]} "{where}".')
        return record

    def _of_arn(self, operation: str, arn: str) -> Record:
        kind, _, name = arn.removeprefix(f"{ARN}:").partition("/")
        record = self._kept[f"{kind}s"].find(name) if f"{kind}s" in self._kept else None
        if record is None:
            raise client_error(operation, "ValidationException", f"Could not find {arn}")
        return record

    def _own_image(self, operation: str, image: str | None) -> None:
        if image != self._image:
            said = f"the image {image!r} is not here; this platform runs {self._image!r} only"
            raise client_error(operation, "ValidationException", said)

    def _stop(self, operation: str, kind: str, name: str, status: str) -> None:
        record = self._job(operation, kind, name)
        found = self._described(record, status, training_jobs.ENDED)[status]
        if found in training_jobs.ENDED:
            raise client_error(
                operation, "ValidationException", f"The request was rejected because {name} is in status {found}."
            )
        record.ask_to_stop()

    def _described(self, record: Record, status: str, ends: tuple[str, ...]) -> Answer:
        """Request and state of something that is supervised; Failed if nobody does although it has not ended."""
        try:
            state = record.state
            if state[status] not in ends and record.abandoned:
                state = self._lost(record, status, ends)
            return {**_without_tags(record.request), **answered(state)}
        except BrokenRecord as error:
            # Its name stays taken; that it cannot be told what became of it counts as failure.
            moments = answered({"CreationTime": 0.0, "LastModifiedTime": 0.0})
            reason = f"InternalServerError: {error}"
            return {status: "Failed", "SecondaryStatus": "Failed", "FailureReason": reason, **moments}

    def _lost(self, record: Record, status: str, ends: tuple[str, ...]) -> dict[str, Any]:
        state = record.state
        # Another may be repairing it, or a supervisor may have come late; a disk that refuses changes nothing about
        # what is true: the next to ask finds it out again.
        with suppress(OSError), record.alone(wait=False):
            state = record.state
            if state[status] in ends:
                return state
            self._end_what_is_left(record)
            if status == "TrainingJobStatus":
                state = training_jobs.ended(state, "Failed", "Failed", "Failed", FailureReason=LOST)
            else:
                state = {**state, status: "Failed", "FailureReason": LOST, "LastModifiedTime": now()}
            record.write(state)
        return state

    @staticmethod
    def _end_what_is_left(record: Record) -> None:
        process = record.state[INTERNAL].get("process")
        if process:
            ProcessId(process["pid"], process["began"]).signal_group(signal.SIGKILL)

    def _echo(self, record: Record) -> Answer:
        return {**_without_tags(record.request), **answered(record.state)}

    def _list(self, operation: str, kind: str, request: dict[str, Any], name: str, keys: Sequence[str]) -> Answer:
        validate_request(operation, request, SCHEMES)
        summaries: list[dict[str, Any]] = []
        for record in self._kept[kind].all():
            try:
                whole = {**record.request, **answered(record.state)}
            except BrokenRecord:
                continue
            summaries.append({key: whole[key] for key in keys if key in whole})
        of_name, of_status = keys[0], next((key for key in keys if key.endswith("Status")), None)
        after, before = request.get("CreationTimeAfter"), request.get("CreationTimeBefore")
        found = [
            each
            for each in summaries
            if request.get("NameContains", "").lower() in each[of_name].lower()
            and (of_status is None or request.get("StatusEquals") in (None, each[of_status]))
            and (after is None or each["CreationTime"] >= after)
            and (before is None or each["CreationTime"] <= before)
        ]
        by_name = request.get("SortBy") == "Name"
        found.sort(
            key=lambda each: each[of_name] if by_name else each["CreationTime"],
            reverse=request.get("SortOrder", "Descending") == "Descending",
        )
        first = int(request.get("NextToken") or 0)
        last = first + int(request.get("MaxResults", 10))
        return {name: found[first:last], **({"NextToken": str(last)} if last < len(found) else {})}


def _without_tags(request: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if name != "Tags"}
