"""A platform as a place to compute: a function of frames as one processing job, found again by name.

It is `compute`'s third place, beside this process and Spark. A job is given the function and its frames as files and
leaves its answer as one; what it computes has the bytes of what would have been computed here. How a job is started,
found again, followed and tried again is in `attempts`.
"""

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import polars as pl

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
from stockpicker_dagster.training.platforms.attempt_memory import Memory
from stockpicker_dagster.training.platforms.attempts import Work, outcome
from stockpicker_dagster.training.platforms.jobs import PROCESSING
from stockpicker_dagster.training.platforms.polling import wait_for
from stockpicker_dagster.training.platforms.requests import digits_of

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
        answer = self._answer(f"compute-{by}-{digits_of(digits, self._platform)}", by, given)
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
        def name(attempt: int) -> str:
            return stem + (f"-{attempt}" if attempt > 1 else "")

        def collect(described: Answer) -> pl.DataFrame:
            at = f"{self._output(described['ProcessingJobName'])}/{ANSWER}"
            try:
                return unpacked(self._platform.fetch(at))
            except (pl.exceptions.PolarsError, OSError) as error:
                raise PlatformFailure(f"{at} is no answer ({error})") from error

        work = Work(
            PROCESSING,
            name,
            lambda attempt: self._request(stem, name(attempt), by, given),
            collect,
            more_time="give it a larger instance",
            memory=Memory(self._platform, stem),
        )
        answer, described = wait_for(outcome(self._platform, work))
        self._platform.remove(self._output(described["ProcessingJobName"]))
        self._platform.unstage(stem)
        return answer

    def _request(self, stem: str, name: str, by: str, given: Path) -> dict[str, Any]:
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
                        "S3Uri": self._platform.stage(given, stem),
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
