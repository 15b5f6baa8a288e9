"""What the tests of the local platform share: a platform of their own, a stored dataset, and requests for it."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stockpicker_dagster.training.container.settings import Settings
from stockpicker_dagster.training.platforms.local import LocalPlatform
from stockpicker_dagster.training.platforms.requests import TrainingJob, training_request

Ask = Callable[..., dict[str, Any]]
ROOT = Path(__file__).resolve().parents[4]
# The tests are not installed: a process of its own has to be told where they are.
SLOW = [
    *("env", f"PYTHONPATH={ROOT}"),
    *(sys.executable, "-m", "stockpicker_dagster_tests.training.container.slow_algorithm"),
]


@pytest.fixture
def here(tmp_path: Path) -> LocalPlatform:
    """A platform whose jobs are given three seconds to stop."""
    return LocalPlatform(tmp_path / "platform", stop_seconds=3)


@pytest.fixture
def ask(here: LocalPlatform, dataset_folder: Path) -> Ask:
    """Makes requests for a training; `slow` are hyperparameters of the slow algorithm, in place of the linear one."""

    def request(name: str, slow: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        own = ("linear", {"alpha": 1.0}) if slow is None else ("slow", slow)
        settings = Settings(*own, 0, "mine", "2023-06-01")
        made = training_request(here, TrainingJob(settings, dataset_folder))
        if slow is not None:
            made["AlgorithmSpecification"] |= {"ContainerEntrypoint": SLOW, "ContainerArguments": ["train"]}
        return {**made, "TrainingJobName": name, **changes}

    return request


def ended(here: LocalPlatform, name: str, patience: float = 90) -> dict[str, Any]:
    """The job as described at its end."""
    until = time.monotonic() + patience
    while (job := here.client.describe_training_job(TrainingJobName=name))["TrainingJobStatus"] in (
        "InProgress",
        "Stopping",
    ):
        assert time.monotonic() < until, job
        time.sleep(0.02)
    return job


def wait_for(true: Callable[[], Any], patience: float = 60) -> None:
    """Waits until something is."""
    until = time.monotonic() + patience
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)
