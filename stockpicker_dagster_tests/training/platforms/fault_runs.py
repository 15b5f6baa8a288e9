"""Scorings under invented faults, each following from its seed alone: what is answered, and what is left running.

The faults are those of a cloud: throttling, refusals, lost answers, jobs and endpoints that fail or hang, output that
is cut off, interruptions, and the death of the process. No test lives here.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from botocore.exceptions import ConnectionClosedError

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.storage.aws.errors import AwsRefusal
from stockpicker_dagster.storage.aws.settings import AwsSettings
from stockpicker_dagster.training.inference import Scored
from stockpicker_dagster.training.models import StoredModel, load_model
from stockpicker_dagster.training.platforms import PlatformFailure, polling
from stockpicker_dagster.training.platforms.errors import client_error
from stockpicker_dagster.training.platforms.polling import wait_for
from stockpicker_dagster.training.platforms.reaper import OLD, reap
from stockpicker_dagster.training.platforms.sagemaker import CheckedClient
from stockpicker_dagster.training.platforms.scoring import infer
from stockpicker_dagster_tests.aws.fake_sagemaker import FakeSageMaker
from stockpicker_dagster_tests.training.platforms.served_model import ROWS, same, scored_here
from stockpicker_dagster_tests.training.small_strategy import FEATURES

SETTINGS = AwsSettings("stockpicker", "123456789012", "eu-central-1")
NOISE = ("ThrottlingException", "InternalFailure", "reset", "lost answer")
LASTING = ("ThrottlingException", "ExpiredTokenException", "AccessDeniedException", "reset")
STORAGE = ("KMS.DisabledException", "AccessDenied", "ConnectionClosedError", "SlowDown")


class Killed(BaseException):
    """The process is dead: nothing of it runs any more, not even what tidies up."""


class FakePlatform:
    """The platform `sagemaker` on a service and a storage in memory."""

    name, image, role = "sagemaker", "123456789012.dkr.ecr.eu-central-1.amazonaws.com/stockpicker:latest", ""
    output, custom_models = "s3://bucket/jobs", "s3://bucket/custom-models"
    poll_seconds, longest_poll_seconds = 10.0, 60.0

    def __init__(self, service: FakeSageMaker) -> None:
        self.service = service
        self.role = "arn:aws:iam::123456789012:role/stockpicker-sagemaker-execution"
        self.marks = SETTINGS.tags
        self.client: Any = CheckedClient(service, SETTINGS)
        self.runtime: Any = service
        self.training_resources: dict[str, Any] = {}
        self.hosting_resources = {"InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
        self.transform_resources = {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1}

    def stage(self, source: Path, work: str) -> str:
        raise AssertionError(source)

    def unstage(self, work: str) -> None:
        raise AssertionError(work)

    def store(self, location: str, content: bytes) -> None:
        self.service.before("store")
        self.service.storage[location] = content
        self.service.after("store")

    def fetch(self, location: str) -> bytes:
        self.service.before("fetch")
        if location not in self.service.storage:
            raise PlatformFailure(f"{location} is not there; look at the job's log for the reason")
        return self.service.storage[location]

    def listed(self, location: str) -> list[str]:
        self.service.before("fetch")
        return sorted(name for name in self.service.storage if name.startswith(f"{location}/"))

    def remove(self, location: str) -> None:
        self.service.before("fetch")
        self.service.storage.pop(location, None)

    def read_log(self, job: str, position: str | None = None, kind: str = "training") -> tuple[list[str], str]:
        return [], ""


@contextmanager
def time_of(service: FakeSageMaker) -> Iterator[None]:
    """Inside, waiting passes the service's time and takes none."""
    with patch.object(polling, "pause", service.pause), patch.object(polling, "clock", lambda: service.seconds):
        yield


@dataclass(frozen=True)
class Outcome:
    """How one run ended, in a word; what it broke, empty if nothing; and what the reaper had to delete."""

    ended: str
    broken: tuple[str, ...]
    reaped: int


class _Faults:
    """What goes wrong in one run, drawn from its seed."""

    def __init__(self, draw: random.Random, service: FakeSageMaker) -> None:
        self.draw, self.calls = draw, 0
        self.noise = draw.choice([0.0, 0.0, 0.0, 0.03, 0.15, 0.5])
        self.lasting = (draw.randint(1, 25), draw.choice(LASTING)) if draw.random() < 0.15 else None
        self.death = (draw.randint(1, 25), draw.choice([Killed, KeyboardInterrupt])) if draw.random() < 0.3 else None
        self.storage = draw.choice(STORAGE) if draw.random() < 0.05 else None
        self.quota = draw.random() < 0.05
        self.dead = False
        service.unseen = draw.choice([0, 0, 0, 2])
        service.creation_seconds = draw.choice([5.0, 90.0, 400.0, 3_600.0])
        service.creation_fails = draw.choice(["", "", "", "", "", "the container did not pass the ping health check"])
        service.job_seconds = draw.choice([5.0, 100.0, 200.0, 900.0, 1e9])
        service.job_ends = draw.choice(
            [*[("Completed", "")] * 8, ("Failed", "CapacityError: none"), ("Failed", "AlgorithmError: no"),
             ("Failed", "InternalServerError: try again"), ("Stopped", "")]
        )  # fmt: skip
        service.spoil = draw.choice([*[lambda content: content] * 18, *_SPOILED])
        service.before, service.after = self.before, self.after

    def before(self, operation: str) -> None:
        self.calls += 1
        if self.dead:
            raise Killed
        if self.death and self.calls >= self.death[0]:
            self.dead, death, self.death = self.death[1] is Killed, self.death[1], None
            raise death
        if operation in ("store", "fetch"):
            if operation == "store" and self.storage:
                raise AwsRefusal("an object was to be written", self.storage, "the test says so")
            return
        if self.lasting and self.calls >= self.lasting[0]:
            raise _fault(self.lasting[1], operation)
        if self.quota and operation in ("create_endpoint", "create_transform_job"):
            raise client_error(operation, "ResourceLimitExceeded", "the account-level service limit is 0")
        if self.draw.random() < self.noise and (kind := self.draw.choice(NOISE)) != "lost answer":
            raise _fault(kind, operation)

    def after(self, operation: str) -> None:
        if operation != "store" and self.draw.random() < self.noise / 4:
            raise _fault("reset", operation)

    @property
    def nothing_hinders_deletion(self) -> bool:
        return not self.dead and self.lasting is None and self.noise == 0.0


_SPOILED = (
    lambda content: content[: len(content) // 2],
    lambda content: b"".join(content.splitlines(keepends=True)[:-1]),
    lambda content: content + content.splitlines(keepends=True)[-1],
    lambda content: b"",
    lambda content: content.replace(b",", b";"),
    lambda content: content.replace(b"-", b"nan"),
)


def _fault(kind: str, operation: str) -> Exception:
    if kind == "reset":
        return ConnectionClosedError(endpoint_url="https://sagemaker")
    error = client_error(operation, kind, "the test says so")
    if kind == "InternalFailure":
        error.response["ResponseMetadata"]["HTTPStatusCode"] = 500
    return error


class FaultRuns:
    """Runs by their seeds, all with one stored model."""

    def __init__(self, model: StoredModel, files: Path) -> None:
        self.model, self.files = model, files
        self.loaded = load_model(files, "mine", FEATURES)
        self.expected = scored_here(files)
        self.said = ""

    def run(self, seed: int) -> Outcome:
        """One scoring under faults; then they end, a killed step may start again, and the reaper comes."""
        draw, broken = random.Random(seed), []
        service = FakeSageMaker(self.loaded, {})
        platform = FakePlatform(service)
        foreign = self._somebody_elses(service)
        faults = _Faults(draw, service)
        how = draw.choice(["transform", "serverless", "endpoint"])
        with time_of(service):
            ended = self._score(platform, how, broken)
            stuck = any("endpoint " in each for each in self._left(service, foreign)) and service.creation_seconds > 300
            # A job that was told to stop takes its time.
            service.pause(60)
            if faults.nothing_hinders_deletion and not stuck and (left := self._left(service, foreign)):
                broken.append(f"left running: {left}")
            service.before = service.after = lambda operation: None
            if ended == "killed" and draw.random() < 0.5:
                service.job_ends, service.spoil, service.creation_fails = ("Completed", ""), lambda content: content, ""
                service.job_seconds, service.creation_seconds = 200.0, 5.0
                if self._score(platform, how, broken) != "scored":
                    broken.append(f"a step that started again did not score: {self.said}")
            service.pause(OLD.total_seconds() + 3_600)
            reaped = len(reap(platform, service.now))
            service.pause(900)
            reap(platform, service.now)
            service.pause(60)
        if left := self._left(service, foreign):
            broken.append(f"leaked: {left}")
        if any(name not in service.things["endpoint"] for name in foreign):
            broken.append("somebody else's endpoint is gone")
        return Outcome(ended, tuple(broken), reaped)

    def _score(self, platform: FakePlatform, how: Any, broken: list[str]) -> str:
        try:
            found: Scored = wait_for(infer(platform, how, "research", self.model, self.files, ROWS)).scored
        except StockPickerError as error:
            self.said = str(error)
            if len(str(error)) < 20:
                broken.append(f"an unclear error: {error!r}")
            return "refused"
        except KeyboardInterrupt:
            return "cancelled"
        except Killed:
            return "killed"
        if not same(found, self.expected):
            broken.append("other scores than the model's")
        return "scored"

    @staticmethod
    def _somebody_elses(service: FakeSageMaker) -> list[str]:
        tags = {"theirs": [], "other-deployment": [{"Key": "stockpicker", "Value": "other"}]}
        for name, own in tags.items():
            service.things["endpoint"][name] = {
                "EndpointName": name, "EndpointConfigName": name, "CreationTime": service.now, "began": -1e9,
                "unseen": 0, "Tags": own,
            }  # fmt: skip
        return list(tags)

    @staticmethod
    def _left(service: FakeSageMaker, foreign: list[str]) -> list[str]:
        return [each for each in service.left() if each.split()[1] not in foreign]
