"""A platform as a place to compute: a function of frames as one processing job, found again by name.

It is `compute`'s third place, beside this process and Spark. A job is given the function and its frames as files and
leaves its answer as one; what it computes has the bytes of what would have been computed here. The name of a job says
what it computes, so that a step which was killed and starts again follows the job that it began.
"""

import hashlib
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import polars as pl
from botocore.exceptions import ClientError

from stockpicker_dagster.code_version import code_version
from stockpicker_dagster.compute import FrameFunction
from stockpicker_dagster.compute.travelling import identity, packed, pickled, unpacked
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.training.container.compute import (
    ANSWER,
    BY,
    CODE,
    DIGEST,
    ENGINE,
    FRAMES,
    FUNCTION,
    PYTHON,
    SCHEMA,
    python_version,
)
from stockpicker_dagster.training.platforms import Answer, Platform, PlatformFailure
from stockpicker_dagster.training.platforms.errors import already_exists, is_missing

_log = logging.getLogger(__name__)
_ATTEMPTS = 200
_LOST = 2
"""So often a job is started again that failed for no fault of its own."""
_MOST_SECONDS = 6 * 3600
_KEPT_SECONDS = 86_400

Engine = Literal["process", "spark"]
"""What a job computes by: the function itself, which uses every core, or Spark on all of them."""


def engine(name: str) -> Engine:
    """The engine of that name. Raises `InvalidInput`, naming those known."""
    if name not in get_args(Engine):
        raise InvalidInput(f"engine {name!r} is unknown; known: {', '.join(get_args(Engine))}")
    return cast(Engine, name)


class OnPlatform:
    """Runs functions as processing jobs of a platform, whose input is laid out under `folder`.

    `instance_type` and `volume_gb` say what a job runs on, `own_modules` name modules that the image lacks.
    """

    def __init__(
        self,
        platform: Platform,
        folder: Path,
        instance_type: str = "ml.m5.4xlarge",
        volume_gb: int = 50,
        engine: Engine = "process",
        own_modules: Sequence[str] = (),
    ) -> None:
        self._platform = platform
        self._folder = folder
        self._cluster = {"InstanceType": instance_type, "InstanceCount": 1, "VolumeSizeInGB": volume_gb}
        self._engine = engine
        self._own_modules = tuple(own_modules)

    def run(
        self, function: FrameFunction, frames: Sequence[pl.DataFrame], by: str, schema: Mapping[str, Any]
    ) -> pl.DataFrame:
        """As `Compute` says. Raises `PlatformFailure`, in the container's words, if the job fails."""
        files = {name: packed(frame) for name, frame in zip(FRAMES, frames, strict=False)}
        files[SCHEMA] = packed(pl.DataFrame(schema=schema))
        what = (code_version(), python_version(), by, identity(function, self._own_modules))
        whole = hashlib.sha256("\0".join(what).encode())
        for name, content in sorted(files.items()):
            whole.update(name.encode() + hashlib.sha256(content).digest())
        files[FUNCTION] = pickled(function, self._own_modules)
        digits = whole.hexdigest()[:16]
        given = self._folder / digits
        self._forget_old()
        given.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, content in files.items():
            (given / name).write_bytes(content)
        answer = self._answer(f"compute-{by}-{digits}", by, given)
        shutil.rmtree(given, ignore_errors=True)
        if answer.schema != pl.Schema(schema):
            raise PlatformFailure(f"the job answered with the columns {answer.schema}, not {pl.Schema(schema)}")
        return answer

    def _forget_old(self) -> None:
        """Removes input that was left where a step ended early: a job that it began may still have read it."""
        for left in self._folder.glob("*"):
            if time.time() - left.stat().st_mtime > _KEPT_SECONDS:
                shutil.rmtree(left, ignore_errors=True)

    def _answer(self, stem: str, by: str, given: Path) -> pl.DataFrame:
        lost = 0
        for attempt in range(1, _ATTEMPTS + 1):
            name = stem + (f"-{attempt}" if attempt > 1 else "")
            described, own = self._find_or_start(name, by, given)
            try:
                described = self._followed(name, described)
            except BaseException:
                self._stop(name)
                raise
            status, reason = described["ProcessingJobStatus"], described.get("FailureReason", "")
            said = ": ".join(filter(None, (reason, described.get("ExitMessage", "")))) or "no reason was given"
            if status == "Completed":
                try:
                    answer = unpacked(self._platform.fetch(f"{self._output(name)}/{ANSWER}"))
                except (PlatformFailure, pl.exceptions.PolarsError, OSError) as error:
                    _log.info("the answer of job %s cannot be used (%s); it is computed again", name, error)
                    continue
                self._platform.remove(self._output(name))
                return answer
            if own:
                lost += 1
                # Only what the platform did is worth a second try at once: an error of the function comes back.
                if not reason.startswith(("InternalServerError", "CapacityError")) or lost > _LOST:
                    raise PlatformFailure(f"the processing job {name} ended as {status}: {said}")
            _log.info("job %s ended as %s: %s; another is started", name, status, said)
        raise PlatformFailure(f"{_ATTEMPTS} attempts at {stem} failed; run it again later")

    def _find_or_start(self, name: str, by: str, given: Path) -> tuple[Answer, bool]:
        """The job as described, and whether it was started or has yet to end while we look."""
        client = self._platform.client
        for _ in range(2):
            try:
                described = client.describe_processing_job(ProcessingJobName=name)
            except ClientError as error:
                if not is_missing(error):
                    raise PlatformFailure(f"the platform {self._platform.name} refused: {error}") from error
            else:
                running = described["ProcessingJobStatus"] in ("InProgress", "Stopping")
                if running:
                    _log.info("job %s is running already and is followed", name)
                return described, running
            try:
                client.create_processing_job(**self._request(name, by, given))
            except ClientError as error:
                # Another step was quicker by a moment: its job is followed.
                if not already_exists(error):
                    raise PlatformFailure(f"the platform {self._platform.name} refused: {error}") from error
            else:
                return client.describe_processing_job(ProcessingJobName=name), True
        raise PlatformFailure(f"the job {name} is there and cannot be described; run it again")

    def _request(self, name: str, by: str, given: Path) -> dict[str, Any]:
        """The keyword arguments of `create_processing_job`; what the job reads is staged on the platform."""
        return {
            "ProcessingJobName": name,
            "AppSpecification": {"ImageUri": self._platform.image, "ContainerArguments": ["compute"]},
            "Environment": {
                DIGEST: hashlib.sha256((given / FUNCTION).read_bytes()).hexdigest(),
                CODE: code_version(),
                PYTHON: python_version(),
                BY: by,
                ENGINE: self._engine,
            },
            "RoleArn": self._platform.role,
            "ProcessingInputs": [
                {
                    "InputName": "input",
                    "S3Input": {
                        "S3Uri": self._platform.stage(given),
                        "LocalPath": "/opt/ml/processing/input",
                        "S3DataType": "S3Prefix",
                        "S3InputMode": "File",
                        "S3DataDistributionType": "FullyReplicated",
                    },
                }
            ],
            "ProcessingOutputConfig": {
                "Outputs": [
                    {
                        "OutputName": "answer",
                        "S3Output": {
                            "S3Uri": self._output(name),
                            "LocalPath": "/opt/ml/processing/output",
                            "S3UploadMode": "EndOfJob",
                        },
                    }
                ]
            },
            "ProcessingResources": {"ClusterConfig": self._cluster},
            "StoppingCondition": {"MaxRuntimeInSeconds": _MOST_SECONDS},
        }

    def _output(self, name: str) -> str:
        return f"{self._platform.output}/processing/{name}"

    def _followed(self, name: str, described: Answer) -> Answer:
        """Waits for the end of a job; the job as described at last."""
        wait = self._platform.poll_seconds
        while described["ProcessingJobStatus"] not in ("Completed", "Failed", "Stopped"):
            time.sleep(wait)
            wait = min(self._platform.longest_poll_seconds, wait * 1.2)
            described = self._platform.client.describe_processing_job(ProcessingJobName=name)
        return described

    def _stop(self, name: str) -> None:
        try:
            self._platform.client.stop_processing_job(ProcessingJobName=name)
        except ClientError as error:
            _log.warning("the job %s could not be stopped: %s", name, error)
