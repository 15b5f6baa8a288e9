"""What a platform is asked for: one strategy's training of one period, as a request of SageMaker's.

The name of a job is made from all that decides what it learns, so that a step which starts again finds its own job, and
two steps never train the same model twice at once.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stockpicker_dagster.code_version import code_version
from stockpicker_dagster.training.container.channels import EARLIER
from stockpicker_dagster.training.container.settings import Settings, as_strings
from stockpicker_dagster.training.datasets import CAPTIONS, read_captions
from stockpicker_dagster.training.platforms import Platform

METRICS = [
    {"Name": "step", "Regex": r'^progress .*"step": (\d+)'},
    {"Name": "loss", "Regex": r'^progress .*"loss": ([-+0-9.eE]+)'},
    {"Name": "validation_rank_ic", "Regex": r'^progress .*"validation_rank_ic": ([-+0-9.eE]+)'},
]
"""How a platform reads the figures of a training from its log."""
_NAME = 63


@dataclass(frozen=True)
class TrainingJob:
    """One training: what is learned, from which stored dataset, and for how many seconds at most.

    `start_from` is the folder of the earlier model that `settings.start_from` names, if it names one.
    """

    settings: Settings
    dataset: Path
    max_runtime_seconds: int = 86_400
    start_from: Path | None = None

    @property
    def identity(self) -> str:
        """Sixteen digits over everything that decides what is learned: settings, data and code."""
        whole = {
            "hyperparameters": as_strings(self.settings),
            "types": {name: type(value).__name__ for name, value in self.settings.hyperparameters.items()},
            "data_version": read_captions(self.dataset)["data_version"],
            "code_version": code_version(),
        }
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]

    def name(self, attempt: int, platform: Platform | None = None) -> str:
        """The name of an attempt on a platform (None: this machine), the first being 1.

        Strategy and period are in it for readers only; the digits tell jobs apart, also those of two deployments in one
        account, neither of which can read what the other's leave.
        """
        ending = f"-{digits_of(self.identity, platform)}" + (f"-{attempt}" if attempt > 1 else "")
        words = re.sub(r"[^a-zA-Z0-9]+", "-", f"{self.settings.strategy}-{self.settings.period}").strip("-")
        return (words[: _NAME - len(ending)].rstrip("-") + ending).lstrip("-")


def digits_of(identity: str, platform: Platform | None) -> str:
    """An identity as a platform's names have it: on this machine as it is, elsewhere with the deployment in it."""
    if platform is None or platform.name == "local":
        return identity
    return hashlib.sha256(json.dumps([identity, platform.marks], sort_keys=True).encode()).hexdigest()[:16]


def training_request(
    platform: Platform, job: TrainingJob, attempt: int = 1, tags: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The keyword arguments of `create_training_job`; what the job reads is staged on the platform."""
    files = {"train": "train.parquet", "validation": "validation.parquet", "captions": CAPTIONS}
    channels = {channel: job.dataset / file for channel, file in files.items()}
    if job.start_from is not None:
        channels[EARLIER] = job.start_from
    kinds = {"captions": "application/json", EARLIER: "application/octet-stream"}
    tagged = {"stockpicker:strategy": job.settings.strategy, "stockpicker:period": job.settings.period, **(tags or {})}
    return {
        "TrainingJobName": job.name(attempt, platform),
        "AlgorithmSpecification": {
            "TrainingImage": platform.image,
            "TrainingInputMode": "File",
            "MetricDefinitions": METRICS,
        },
        "RoleArn": platform.role,
        "HyperParameters": as_strings(job.settings),
        "InputDataConfig": [
            {
                "ChannelName": channel,
                "ContentType": kinds.get(channel, "application/x-parquet"),
                "InputMode": "File",
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        "S3Uri": platform.stage(path, job.name(1, platform)),
                        "S3DataDistributionType": "FullyReplicated",
                    }
                },
            }
            for channel, path in channels.items()
        ],
        "OutputDataConfig": {"S3OutputPath": f"{platform.output}/models"},
        "ResourceConfig": platform.training_resources,
        "StoppingCondition": {"MaxRuntimeInSeconds": job.max_runtime_seconds},
        # One folder for all attempts: the next goes on where one was stopped.
        "CheckpointConfig": {"S3Uri": checkpoints(platform, job)},
        "Tags": [{"Key": key, "Value": value} for key, value in tagged.items() if value],
    }


def checkpoints(platform: Platform, job: TrainingJob) -> str:
    """The URI of the folder in which the attempts of a training keep what they have learned so far."""
    return f"{platform.output}/checkpoints/{job.identity}"
