"""SageMaker's built-in algorithms on our datasets: XGBoost and the linear learner, by their own conventions.

Both read CSV without a header, the label first, and are asked with the features alone. XGBoost's artifact is data that
`research.algorithms.xgboost_model` reads and scores anywhere. The linear learner's is a file of a library that executes
what it loads, so nothing here opens it: its scores come from the platform alone (`built_in_scoring`). Jobs are followed
by `attempts`, as all are; the local platform has no such images and refuses.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms.hyperparameters import Value
from stockpicker_dagster.research.algorithms.xgboost_model import XGBoostModel
from stockpicker_dagster.storage.aws.clients import region
from stockpicker_dagster.training.datasets import LABEL, read_captions
from stockpicker_dagster.training.platforms import Answer, Platform, PlatformFailure
from stockpicker_dagster.training.platforms.attempt_memory import Memory
from stockpicker_dagster.training.platforms.attempts import Work, outcome
from stockpicker_dagster.training.platforms.built_in_images import image_uri
from stockpicker_dagster.training.platforms.built_in_settings import FIXED, BuiltIn, validate_settings
from stockpicker_dagster.training.platforms.jobs import TRAINING
from stockpicker_dagster.training.platforms.polling import wait_for
from stockpicker_dagster.training.platforms.requests import digits_of

CONTENT_TYPE = "text/csv"
_XGBOOST_FILE = "xgboost-model"
_NAME = 63


def as_csv(table: pl.DataFrame, features: list[str], label: str | None = LABEL) -> bytes:
    """Rows as the built-in algorithms read them: no header, the label first, or the features alone.

    Rows without a label are left out, as in every training. Raises `InvalidInput` for a value that is not finite.
    """
    columns = [*([label] if label else []), *features]
    chosen = table.select(columns).drop_nulls(label) if label else table.select(columns)
    if chosen.is_empty():
        raise InvalidInput("the table has no row with a label; collect more days")
    wrong = [name for name in columns if not chosen[name].is_finite().fill_null(False).all()]
    if wrong:
        raise InvalidInput(
            f"the columns {', '.join(wrong)} have values that are not finite; scale and impute them first"
        )
    return chosen.write_csv(include_header=False).encode()


@dataclass(frozen=True)
class BuiltInTraining:
    """One training of a built-in algorithm on a stored dataset; `folder` is where its CSV is laid out."""

    algorithm: BuiltIn
    dataset: Path
    folder: Path
    strategy: str
    period: str
    hyperparameters: Mapping[str, object] = field(default_factory=dict)
    max_runtime_seconds: int = 86_400

    @cached_property
    def settings(self) -> dict[str, Value]:
        return validate_settings(self.algorithm, self.hyperparameters)

    @cached_property
    def features(self) -> list[str]:
        return list(read_captions(self.dataset)["features"])

    @cached_property
    def identity(self) -> str:
        """Sixteen digits over everything that decides what is learned: algorithm, image, settings and data."""
        version = read_captions(self.dataset)["data_version"]
        whole = [self.algorithm, image_uri(self.algorithm, region()), self._strings, version]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def _strings(self) -> dict[str, str]:
        """The hyperparameters of the request, every one a string."""
        own = {name: value if isinstance(value, str) else json.dumps(value) for name, value in self.settings.items()}
        if own.get("early_stopping_rounds") == "0":
            del own["early_stopping_rounds"]
        return {**FIXED[self.algorithm], **own}

    def name(self, attempt: int, platform: Platform | None = None) -> str:
        """The name of an attempt on a platform, the first being 1."""
        ending = f"-{digits_of(self.identity, platform)}" + (f"-{attempt}" if attempt > 1 else "")
        words = re.sub(r"[^a-zA-Z0-9]+", "-", f"{self.strategy}-{self.period}-{self.algorithm}").strip("-")
        return (words[: _NAME - len(ending)].rstrip("-") + ending).lstrip("-")

    def request(self, platform: Platform, attempt: int = 1) -> dict[str, Any]:
        """The keyword arguments of `create_training_job`; its CSV is staged on the platform."""
        return {
            "TrainingJobName": self.name(attempt, platform),
            "AlgorithmSpecification": {
                "TrainingImage": image_uri(self.algorithm, region()),
                "TrainingInputMode": "File",
            },
            "RoleArn": platform.role,
            "HyperParameters": self._strings,
            "InputDataConfig": [
                {
                    "ChannelName": channel,
                    "ContentType": CONTENT_TYPE,
                    "InputMode": "File",
                    "DataSource": {
                        "S3DataSource": {
                            "S3DataType": "S3Prefix",
                            "S3Uri": platform.stage(self._laid_out(channel), self.name(1, platform)),
                            "S3DataDistributionType": "FullyReplicated",
                        }
                    },
                }
                for channel in ("train", "validation")
            ],
            "OutputDataConfig": {"S3OutputPath": f"{platform.output}/models"},
            "ResourceConfig": platform.training_resources,
            "StoppingCondition": {"MaxRuntimeInSeconds": self.max_runtime_seconds},
            "Tags": [
                {"Key": "stockpicker:strategy", "Value": self.strategy},
                {"Key": "stockpicker:period", "Value": self.period},
            ],
        }

    def _laid_out(self, channel: str) -> Path:
        table = pl.read_parquet(self.dataset / f"{channel}.parquet", hive_partitioning=False)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{channel}.csv"
        path.write_bytes(as_csv(table, self.features))
        return path


@dataclass(frozen=True)
class BuiltInModel:
    """A trained model: its archive on the platform, and its trees where they can be read."""

    training: BuiltInTraining
    artifact: str
    trees: XGBoostModel | None

    def predict(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores of rows, computed here. Raises `InvalidInput` for the linear learner, whose artifact is not opened."""
        if self.trees is None:
            raise InvalidInput(
                f"a model of {self.training.algorithm} is scored by the platform alone (`score_built_in`): its "
                "artifact cannot be read without executing it"
            )
        return self.trees.predict(values)


def train_built_in(platform: Platform, training: BuiltInTraining) -> BuiltInModel:
    """Trains on `platform`, follows a job that runs already, or takes the model of one that has ended.

    Raises `InvalidInput` where the platform is not SageMaker, and `PlatformFailure` in the container's words.
    """
    if platform.name != "sagemaker":
        raise InvalidInput(
            f"the built-in algorithm {training.algorithm!r} is an image of AWS's; train it with platform 'sagemaker', "
            "or an algorithm of our own, such as boosted_trees, here"
        )

    def collect(described: Answer) -> BuiltInModel:
        artifact = described["ModelArtifacts"]["S3ModelArtifacts"]
        if training.algorithm != "xgboost":
            return BuiltInModel(training, artifact, None)
        try:
            return BuiltInModel(training, artifact, XGBoostModel(_member(platform.fetch(artifact), _XGBOOST_FILE)))
        except InvalidInput as error:
            raise PlatformFailure(f"{artifact}: {error}") from error

    work = Work(
        TRAINING,
        lambda attempt: training.name(attempt, platform),
        lambda attempt: training.request(platform, attempt),
        collect,
        memory=Memory(platform, training.name(1, platform)),
    )
    model, _ = wait_for(outcome(platform, work))
    platform.unstage(training.name(1, platform))
    return model


def _member(packed: bytes, name: str) -> bytes:
    """One file of a model's archive. Raises `PlatformFailure` if it is not in there."""
    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            content = archive.extractfile(name)
            if content is not None:
                return content.read()
    except (tarfile.TarError, OSError, EOFError, KeyError) as error:
        raise PlatformFailure(f"the model's archive has no file {name} that can be read ({error!r})") from error
    raise PlatformFailure(f"the model's archive has no file {name}")
