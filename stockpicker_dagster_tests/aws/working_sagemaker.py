"""What the emulator of SageMaker leaves undone, done behind the same HTTP: jobs train and transform, endpoints answer.

It stands in the proxy in front of the emulator, which keeps what it is sent and does nothing of it. Training runs the
container's entry point as a process under SageMaker's layout, with S3 in between; scores are those of the container's
own code on the archive that a model names. Names that are taken are refused, as the service does.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.training.container.layout import ROOT, Layout
from stockpicker_dagster.training.container.serve import answer
from stockpicker_dagster.training.models import TrainedModel, describe_stored_model, load_model
from stockpicker_dagster_tests.aws.fake_sagemaker import transformed
from stockpicker_dagster_tests.aws.faulty_proxy import Answered

_TAKEN = {"TrainingJob": "ResourceInUse", "TransformJob": "ResourceInUse"}


class WorkingSageMaker:
    """Give it to a `FaultyProxy` as its `service`. `asked` lists the operations that took effect, in their order."""

    def __init__(self, moto_url: str, folder: Path) -> None:
        import boto3
        from botocore.config import Config

        where = {"region_name": "eu-central-1", "aws_access_key_id": "invented", "aws_secret_access_key": "invented"}
        path_style = Config(s3={"addressing_style": "path"})
        self.s3: Any = boto3.client("s3", endpoint_url=moto_url, config=path_style, **where)
        self.emulator: Any = boto3.client("sagemaker", endpoint_url=moto_url, **where)
        self.folder = folder
        self.asked: list[str] = []
        self.failed: dict[str, str] = {}
        self.running: dict[str, threading.Thread] = {}
        self.model_at = lru_cache(maxsize=32)(self._model_at)

    def reply(self, path: str, target: str, body: bytes, forward: Callable[[bytes], Answered]) -> Answered:
        """The answer to one request; what it does not do itself is the emulator's."""
        operation = target.removeprefix("SageMaker.")
        if path.startswith("/endpoints/"):
            return self._invoked(path.split("/")[2], body)
        if operation == target or not operation:
            return forward(body)
        kind = operation.removeprefix("Create")
        request = json.loads(body or b"{}")
        if kind != operation:
            if self._is_taken(kind, request):
                code = _TAKEN.get(kind, "ValidationException")
                return _error(code, f"Cannot create already existing {kind}")
            made = forward(body)
            if made[0] == 200:
                self.asked.append(operation)
                self._begin(kind, request)
            return made
        if operation.startswith("Delete"):
            self.asked.append(operation)
        answered = forward(body)
        return self._as_it_is(request, answered) if operation.startswith("Describe") else answered

    def wait(self) -> None:
        """Until every job has ended."""
        for thread in list(self.running.values()):
            thread.join(120)

    def _is_taken(self, kind: str, request: Mapping[str, Any]) -> bool:
        from botocore.exceptions import ClientError

        name_key = f"{kind}Name"
        words = {"TrainingJob": "training_job", "TransformJob": "transform_job", "EndpointConfig": "endpoint_config"}
        describe = getattr(self.emulator, f"describe_{words.get(kind, kind.lower())}", None)
        if describe is None or name_key not in request:
            return False
        try:
            describe(**{name_key: request[name_key]})
        except ClientError:
            return False
        return True

    def _begin(self, kind: str, request: dict[str, Any]) -> None:
        work = {"TrainingJob": self._train, "TransformJob": self._transform}.get(kind)
        if work is None:
            return
        name = request[f"{kind}Name"]

        def run() -> None:
            try:
                work(request)
            except Exception as error:
                self.failed[name] = f"AlgorithmError: {error}"
            finally:
                del self.running[name]

        self.running[name] = threading.Thread(target=run, daemon=True)
        self.running[name].start()

    def _as_it_is(self, request: Mapping[str, Any], answered: Answered) -> Answered:
        """The emulator's description, with the status that the job really has."""
        status, reason, headers, content = answered
        name = request.get("TrainingJobName") or request.get("TransformJobName") or ""
        kind = "TrainingJob" if "TrainingJobName" in request else "TransformJob"
        if status != 200 or (name not in self.running and name not in self.failed):
            return answered
        described = json.loads(content)
        described[f"{kind}Status"] = "InProgress" if name in self.running else "Failed"
        if name in self.failed:
            described["FailureReason"] = self.failed[name]
        kept = [(key, value) for key, value in headers if key.lower() != "content-length"]
        return status, reason, kept, json.dumps(described).encode()

    def _train(self, request: dict[str, Any]) -> None:
        name = request["TrainingJobName"]
        layout = Layout(self.folder / name)
        for folder in (layout.config, layout.data, layout.model, layout.failure.parent):
            folder.mkdir(parents=True, exist_ok=True)
        channels: dict[str, Any] = {}
        for channel in request["InputDataConfig"]:
            self._download(channel["DataSource"]["S3DataSource"]["S3Uri"], layout.data / channel["ChannelName"])
            channels[channel["ChannelName"]] = {
                "TrainingInputMode": channel["InputMode"],
                "S3DistributionType": "FullyReplicated",
                "RecordWrapperType": "None",
                "ContentType": channel["ContentType"],
            }
        layout.hyperparameters.write_text(json.dumps(request["HyperParameters"]))
        layout.channels.write_text(json.dumps(channels))
        layout.resources.write_text(json.dumps({"current_host": "algo-1", "hosts": ["algo-1"]}))
        # As in the service: nothing of this process's environment reaches the container but what finds the code.
        kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH", "NUMBA_CACHE_DIR") if key in os.environ}
        command = [sys.executable, "-m", "stockpicker_dagster.training.container", "train"]
        done = subprocess.run(command, env={**kept, ROOT: str(layout.root)}, capture_output=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(layout.failure.read_text() if layout.failure.exists() else done.stderr.decode()[-500:])
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for file in sorted(layout.model.iterdir()):
                archive.add(file, file.name)
        self._put(f"{request['OutputDataConfig']['S3OutputPath']}/{name}/output/model.tar.gz", packed.getvalue())

    def _transform(self, request: dict[str, Any]) -> None:
        source = request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
        said = transformed(self._model_of(request["ModelName"]), request, self._get(source))
        self._put(f"{request['TransformOutput']['S3OutputPath']}/{source.rpartition('/')[2]}.out", said)

    def _invoked(self, endpoint: str, body: bytes) -> Answered:
        config = self.emulator.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
        [variant] = self.emulator.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
        try:
            kind, said = answer(self._model_of(variant["ModelName"]), "text/csv", body, "text/csv", reasons=True)
        except StockPickerError as error:
            return _error("ModelError", str(error), 424)
        self.asked.append("InvokeEndpoint")
        return 200, "OK", [("Content-Type", kind)], said

    def _model_of(self, name: str) -> TrainedModel:
        container = self.emulator.describe_model(ModelName=name)["PrimaryContainer"]
        return self.model_at(container["ModelDataUrl"])

    def _model_at(self, uri: str) -> TrainedModel:
        with tempfile.TemporaryDirectory() as scratch:
            with tarfile.open(fileobj=io.BytesIO(self._get(uri))) as archive:
                for member in archive.getmembers():
                    file = archive.extractfile(member)
                    assert file is not None
                    (Path(scratch) / member.name).write_bytes(file.read())
            said = describe_stored_model(Path(scratch))
            return load_model(Path(scratch), said["strategy"], said["features"])

    def _download(self, uri: str, folder: Path) -> None:
        """Everything below a prefix, as the service brings it: by what follows the prefix's last slash."""
        place = urlsplit(uri)
        prefix = place.path.strip("/")
        listed = self.s3.list_objects_v2(Bucket=place.netloc, Prefix=prefix)["Contents"]
        for each in listed:
            target = folder / (each["Key"].removeprefix(prefix).strip("/") or prefix.rpartition("/")[2])
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self._get(f"s3://{place.netloc}/{each['Key']}"))

    def _get(self, uri: str) -> bytes:
        place = urlsplit(uri)
        return bytes(self.s3.get_object(Bucket=place.netloc, Key=place.path.strip("/"))["Body"].read())

    def _put(self, uri: str, content: bytes) -> None:
        place = urlsplit(uri)
        self.s3.put_object(Bucket=place.netloc, Key=place.path.strip("/"), Body=content)


def _error(code: str, message: str, status: int = 400) -> Answered:
    content = json.dumps({"__type": code, "message": message}).encode()
    return status, "Bad Request", [("Content-Type", "application/x-amz-json-1.1")], content
