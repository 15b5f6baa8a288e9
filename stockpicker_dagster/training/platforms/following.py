"""From a training that is wanted to the files of its model: one job is started, found again, watched, and collected.

Nothing is remembered here: a job's name says what it learns, so that a step which was killed and starts again follows
the job that it began. Jobs that failed or were stopped are tried again under another name, from their checkpoint.
"""

import io
import json
import logging
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from stockpicker_dagster.research.algorithms import Progress
from stockpicker_dagster.storage.lake import Bundle
from stockpicker_dagster.training.container.train import PROGRESS
from stockpicker_dagster.training.models import describe_model
from stockpicker_dagster.training.platforms import Answer, Platform, PlatformFailure
from stockpicker_dagster.training.platforms.errors import already_exists, is_missing
from stockpicker_dagster.training.platforms.requests import TrainingJob, checkpoints, training_request

_log = logging.getLogger(__name__)
_ATTEMPTS = 99
_LOST = 2
"""So often a job is started again that failed for no fault of its own."""


@dataclass(frozen=True)
class Trained:
    """A model, and the described job that made it."""

    bundle: Bundle
    job: Answer

    @property
    def used(self) -> dict[str, float]:
        """What the platform says of the job's time and resources, by name."""
        return {each["MetricName"]: float(each["Value"]) for each in self.job.get("FinalMetricDataList") or []}


def train_on(
    platform: Platform,
    job: TrainingJob,
    heard: Callable[[Progress], None] = lambda progress: None,
    say: Callable[[str], None] = _log.info,
) -> Trained:
    """The model of `job`, trained on `platform` unless it has been; `heard` is told how it goes.

    A job that runs already is followed, and one that is completed gives its model. Whatever interrupts the wait, such
    as a cancelled run, stops the job. Raises `PlatformFailure`, in the container's words, if the training fails.
    """
    lost = 0
    for attempt in range(1, _ATTEMPTS + 1):
        name = job.name(attempt)
        described, own = _find_or_start(platform, job, attempt, say)
        try:
            described = _follow(platform, name, described, heard)
        except BaseException:
            _stop(platform, name)
            raise
        status, reason = described["TrainingJobStatus"], described.get("FailureReason", "")
        if status == "Completed":
            try:
                bundle = _collect(platform, described)
            except PlatformFailure as error:
                say(f"the model of job {name} cannot be used ({error}); it is trained again")
                continue
            platform.remove(checkpoints(platform, job))
            return Trained(bundle, described)
        if described.get("SecondaryStatus") == "MaxRuntimeExceeded" and own:
            raise PlatformFailure(
                f"the training {name} was ended after {job.max_runtime_seconds} s, the most it may take; allow more "
                "(training: max_hours), or run it again to go on from its checkpoint"
            )
        if status == "Failed" and own:
            lost += 1
            # Only what the platform did is worth a second try at once: an error of the training comes back.
            if not reason.startswith(("InternalServerError", "CapacityError")) or lost > _LOST:
                raise PlatformFailure(f"the training {name} failed: {reason or 'no reason was given'}")
        say(f"job {name} ended as {status}{': ' if reason else ''}{reason}; another is started")
    raise PlatformFailure(f"{_ATTEMPTS} attempts at {job.name(1)} failed; remove what is left of them and run it again")


def _find_or_start(
    platform: Platform, job: TrainingJob, attempt: int, say: Callable[[str], None]
) -> tuple[Answer, bool]:
    """The job of that attempt as described, and whether it was started or has yet to end while we look."""
    name = job.name(attempt)
    for _ in range(2):
        try:
            described = platform.client.describe_training_job(TrainingJobName=name)
        except ClientError as error:
            if not is_missing(error):
                raise PlatformFailure(f"the platform {platform.name} refused: {error}") from error
        else:
            if described["TrainingJobStatus"] in ("InProgress", "Stopping"):
                say(f"job {name} is running already and is followed")
                return described, True
            return described, False
        try:
            platform.client.create_training_job(**training_request(platform, job, attempt))
        except ClientError as error:
            # Another step was quicker by a moment: its job is followed.
            if not already_exists(error):
                raise PlatformFailure(f"the platform {platform.name} refused: {error}") from error
        else:
            return platform.client.describe_training_job(TrainingJobName=name), True
    raise PlatformFailure(f"the job {name} is there and cannot be described; run it again")


def _follow(platform: Platform, name: str, described: Answer, heard: Callable[[Progress], None]) -> Answer:
    """Waits for the end of a job, passing on its progress; the job as described at last."""
    position: str | None = None
    wait = platform.poll_seconds
    while True:
        ended = described["TrainingJobStatus"] in ("Completed", "Failed", "Stopped")
        lines, position = platform.read_log(name, position)
        for line in lines:
            if (progress := _progress(line)) is not None:
                heard(progress)
        if ended and not lines:
            return described
        if not ended:
            time.sleep(wait)
            wait = min(platform.longest_poll_seconds, wait * 1.2)
            described = platform.client.describe_training_job(TrainingJobName=name)


def _progress(line: str) -> Progress | None:
    if not line.startswith(PROGRESS):
        return None
    try:
        said: dict[str, Any] = json.loads(line.removeprefix(PROGRESS))
        figures = [float("nan") if said[name] is None else float(said[name]) for name in ("loss", "validation_rank_ic")]
        return Progress(int(said["step"]), int(said["of"]), *figures)
    except (ValueError, KeyError, TypeError):
        return None


def _stop(platform: Platform, name: str) -> None:
    try:
        platform.client.stop_training_job(TrainingJobName=name)
    except ClientError as error:
        _log.warning("the job %s could not be stopped: %s", name, error)


def _collect(platform: Platform, described: Answer) -> Bundle:
    """The files of a completed job's model. Raises `PlatformFailure` if they are not a model."""
    packed = platform.fetch(described["ModelArtifacts"]["S3ModelArtifacts"])
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                # Names become files of the lake: nothing but plain names passes.
                if content is None or "/" in member.name or member.name.startswith("."):
                    raise PlatformFailure(f"the model's archive has an entry {member.name!r}, which is no plain file")
                files[member.name] = content.read()
        bundle = Bundle(dict(sorted(files.items())))
        describe_model(bundle)
    except (tarfile.TarError, OSError, EOFError, KeyError, ValueError) as error:
        raise PlatformFailure(f"the model's archive cannot be read ({error!r})") from error
    return bundle
