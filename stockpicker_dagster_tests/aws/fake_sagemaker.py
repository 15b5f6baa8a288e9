"""A SageMaker in memory, with a clock of its own, that does what the emulator does not: jobs take time, endpoints come
up, models answer, and everything can go wrong, at every call, before or after it took effect.

It plays the container with the container's own code. Requests come to it as they would be sent.
"""

import csv
import io
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.training.container.serve import answer
from stockpicker_dagster.training.models import TrainedModel
from stockpicker_dagster.training.platforms.errors import client_error
from stockpicker_dagster.training.platforms.local.filters import ColumnFilter

BEGAN = datetime(2026, 1, 5, tzinfo=UTC)
_KINDS = {"model": "ModelName", "endpoint_config": "EndpointConfigName", "endpoint": "EndpointName",
          "transform_job": "TransformJobName"}  # fmt: skip
_LISTS = {"models": ("model", "Models"), "endpoint_configs": ("endpoint_config", "EndpointConfigs"),
          "endpoints": ("endpoint", "Endpoints"),
          "transform_jobs": ("transform_job", "TransformJobSummaries")}  # fmt: skip


def transformed(model: TrainedModel, request: Mapping[str, Any], content: bytes) -> bytes:
    """What a batch transform of that request writes for one file of CSV: filtered, answered, joined, filtered."""
    processing = request["DataProcessing"]
    lines = list(csv.reader(io.StringIO(content.decode(), newline="")))
    sent = _csv(ColumnFilter(processing["InputFilter"]).choose(line) for line in lines)
    said = answer(model, "text/csv", sent, "text/csv", reasons=True)[1]
    answers = csv.reader(io.StringIO(said.decode(), newline=""))
    kept = ColumnFilter(processing["OutputFilter"])
    return _csv(kept.choose([*line, *each]) for line, each in zip(lines, answers, strict=True))


def _csv(rows: Any) -> bytes:
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator="\n").writerows(rows)
    return written.getvalue().encode()


class FakeSageMaker:
    """The client of the service and of its endpoints. `before` and `after` are called around every operation."""

    exceptions = type("Exceptions", (), {"ClientError": ClientError})

    def __init__(self, model: TrainedModel, storage: dict[str, bytes]) -> None:
        self.model = model
        self.storage = storage
        self.seconds = 0.0
        self.things: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in _KINDS}
        self.before: Callable[[str], None] = lambda operation: None
        self.after: Callable[[str], None] = lambda operation: None
        self.creation_seconds, self.creation_fails, self.unseen = 90.0, "", 0
        self.job_seconds, self.job_ends, self.spoil = 200.0, ("Completed", ""), lambda content: content

    @property
    def now(self) -> datetime:
        return BEGAN + timedelta(seconds=self.seconds)

    def pause(self, seconds: float) -> None:
        """Lets time pass."""
        self.seconds += max(seconds, 0.001)

    def left(self) -> list[str]:
        """All that is there, jobs only while they run."""
        return [
            f"{kind} {name}"
            for kind, things in self.things.items()
            for name, thing in things.items()
            if kind != "transform_job" or self._job_status(thing) not in ("Completed", "Failed", "Stopped")
        ]

    def __getattr__(self, operation: str) -> Any:
        verb, _, kind = operation.partition("_")
        if verb not in ("create", "describe", "delete", "stop", "list") or kind not in (*_KINDS, *_LISTS, "tags"):
            raise AttributeError(operation)

        def called(**request: Any) -> dict[str, Any]:
            self.before(operation)
            done: dict[str, Any] = getattr(self, f"_{verb}")(kind, request)
            self.after(operation)
            return done

        return called

    def invoke_endpoint(self, *, EndpointName: str, Body: bytes, ContentType: str, Accept: str) -> dict[str, Any]:
        self.before("invoke_endpoint")
        endpoint = self.things["endpoint"].get(EndpointName)
        if endpoint is None or self._endpoint_status(endpoint) != "InService":
            raise client_error("InvokeEndpoint", "ValidationError", f"Endpoint {EndpointName} not found.")
        try:
            kind, said = answer(self.model, ContentType, Body, Accept, reasons=True)
        except StockPickerError as error:
            raise client_error("InvokeEndpoint", "ModelError", str(error), OriginalStatusCode=400) from error
        self.after("invoke_endpoint")
        return {"Body": io.BytesIO(self.spoil(said)), "ContentType": kind}

    def _create(self, kind: str, request: dict[str, Any]) -> dict[str, Any]:
        name, things = request[_KINDS[kind]], self.things[kind]
        if name in things:
            code = "ResourceInUse" if kind == "transform_job" else "ValidationException"
            raise client_error(f"Create {kind}", code, f"Cannot create already existing {kind} {name}")
        needs = {"endpoint": "endpoint_config", "transform_job": "model"}.get(kind)
        if needs and request[_KINDS[needs]] not in self.things[needs]:
            raise client_error(f"Create {kind}", "ValidationException", f"Could not find {needs}")
        things[name] = {**request, "CreationTime": self.now, "began": self.seconds, "unseen": self.unseen}
        return {}

    def _describe(self, kind: str, request: dict[str, Any]) -> dict[str, Any]:
        thing = self._found(kind, request)
        if thing["unseen"] > 0:
            thing["unseen"] -= 1
            raise client_error(f"Describe {kind}", "ValidationException", f"Could not find {kind}")
        return self._described(kind, thing)

    def _described(self, kind: str, thing: dict[str, Any]) -> dict[str, Any]:
        more: dict[str, Any] = {}
        if kind == "endpoint":
            more = {"EndpointStatus": self._endpoint_status(thing), "FailureReason": self.creation_fails}
        if kind == "transform_job":
            status = self._job_status(thing)
            more = {"TransformJobStatus": status, "TransformStartTime": thing["CreationTime"]}
            if status == "Failed":
                more["FailureReason"] = self.job_ends[1]
            if status == "Completed":
                more["TransformEndTime"] = thing["CreationTime"] + timedelta(seconds=self.job_seconds)
                self._write_output(thing)
        return {**{key: value for key, value in thing.items() if key != "Tags"}, **more}

    def _delete(self, kind: str, request: dict[str, Any]) -> dict[str, Any]:
        thing = self._found(kind, request)
        if kind == "endpoint" and self._endpoint_status(thing) == "Creating":
            raise client_error("DeleteEndpoint", "ValidationException", "Cannot update in-progress endpoint")
        if kind == "endpoint_config" and any(
            each["EndpointConfigName"] == thing["EndpointConfigName"] for each in self.things["endpoint"].values()
        ):
            raise client_error("DeleteEndpointConfig", "ValidationException", "It is used by an endpoint")
        del self.things[kind][request[_KINDS[kind]]]
        return {}

    def _stop(self, kind: str, request: dict[str, Any]) -> dict[str, Any]:
        thing = self._found(kind, request)
        if self._job_status(thing) != "InProgress":
            raise client_error("StopTransformJob", "ValidationException", "It has ended")
        thing["stopped"] = self.seconds
        return {}

    def _list(self, kind: str, request: dict[str, Any]) -> dict[str, Any]:
        if kind == "tags":
            own, _, name = request["ResourceArn"].partition("/")
            if name not in self.things[own]:
                raise client_error("ListTags", "ValidationException", "Could not find it")
            return {"Tags": self.things[own][name]["Tags"]}
        own, summaries = _LISTS[kind]
        arn = _KINDS[own].removesuffix("Name") + "Arn"
        whole = [
            {**self._described(own, thing), arn: f"{own}/{name}"}
            for name, thing in sorted(self.things[own].items())
            if thing["CreationTime"] <= request["CreationTimeBefore"]
        ]
        if wanted := request.get("StatusEquals"):
            whole = [each for each in whole if each["TransformJobStatus"] == wanted]
        first = int(request.get("NextToken") or 0)
        more = {"NextToken": str(first + 2)} if len(whole) > first + 2 else {}
        return {summaries: whole[first : first + 2], **more}

    def _found(self, kind: str, request: dict[str, Any]) -> dict[str, Any]:
        name = request[_KINDS[kind]]
        if name not in self.things[kind]:
            raise client_error(f"Describe {kind}", "ValidationException", f"Could not find {kind} {name}")
        return self.things[kind][name]

    def _endpoint_status(self, thing: dict[str, Any]) -> str:
        if self.seconds - thing["began"] < self.creation_seconds:
            return "Creating"
        return "Failed" if self.creation_fails else "InService"

    def _job_status(self, thing: dict[str, Any]) -> str:
        if "stopped" in thing:
            return "Stopping" if self.seconds - thing["stopped"] < 30 else "Stopped"
        return "InProgress" if self.seconds - thing["began"] < self.job_seconds else self.job_ends[0]

    def _write_output(self, thing: dict[str, Any]) -> None:
        source = thing["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
        target = f"{thing['TransformOutput']['S3OutputPath']}/{source.rpartition('/')[2]}.out"
        if target not in self.storage and source in self.storage:
            self.storage[target] = self.spoil(transformed(self.model, thing, self.storage[source]))
