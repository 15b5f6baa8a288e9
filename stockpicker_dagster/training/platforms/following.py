"""From a training that is wanted to the files of its model, with its progress on the way.

How a job is started, found again, followed and tried again is in `attempts`; a training goes on from its checkpoint.
"""

import io
import json
import logging
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stockpicker_dagster.research.algorithms import Progress
from stockpicker_dagster.storage.lake import Bundle
from stockpicker_dagster.training.container.train import PROGRESS
from stockpicker_dagster.training.models import describe_model
from stockpicker_dagster.training.platforms import Answer, Platform, PlatformFailure
from stockpicker_dagster.training.platforms.attempt_memory import Memory
from stockpicker_dagster.training.platforms.attempts import Work, outcome
from stockpicker_dagster.training.platforms.jobs import TRAINING
from stockpicker_dagster.training.platforms.polling import Waiting, wait_for
from stockpicker_dagster.training.platforms.requests import TrainingJob, checkpoints, training_request

_log = logging.getLogger(__name__)


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
    """The model of `job`, waited for; see `training`."""
    return wait_for(training(platform, job, heard, say))


def training(
    platform: Platform,
    job: TrainingJob,
    heard: Callable[[Progress], None] = lambda progress: None,
    say: Callable[[str], None] = _log.info,
    log: Callable[[str], None] = lambda line: None,
) -> Waiting[Trained]:
    """The model of `job`, trained on `platform` unless it has been; `heard` is told how it goes, `log` the other lines.

    See `attempts.outcome` for what is found again, tried again and stopped.
    """

    def listen(line: str) -> None:
        if (progress := _progress(line)) is not None:
            heard(progress)
        else:
            log(line)

    hours = f"allow more than {job.max_runtime_seconds} s (training: max_hours), or run it again to go on from its "
    work = Work(
        TRAINING,
        lambda attempt: job.name(attempt, platform),
        lambda attempt: training_request(platform, job, attempt),
        lambda described: _collect(platform, described),
        more_time=f"{hours}checkpoint",
        memory=Memory(platform, job.name(1, platform)),
    )
    bundle, described = yield from outcome(platform, work, listen, say)
    platform.remove(checkpoints(platform, job))
    platform.unstage(job.name(1, platform))
    return Trained(bundle, described)


def _progress(line: str) -> Progress | None:
    if not line.startswith(PROGRESS):
        return None
    try:
        said: dict[str, Any] = json.loads(line.removeprefix(PROGRESS))
        figures = [float("nan") if said[name] is None else float(said[name]) for name in ("loss", "validation_rank_ic")]
        return Progress(int(said["step"]), int(said["of"]), *figures)
    except (ValueError, KeyError, TypeError):
        return None


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
