"""How a strategy's models are trained from a Dagster step: on the platform that its form names, with live progress.

What is learned, and from what, is the caller's; what the platform does is `training.platforms`.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import polars as pl

from stockpicker_dagster.components.job_log import JobLog
from stockpicker_dagster.components.metadata import lines_plot
from stockpicker_dagster.research.algorithms import Progress
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster.training.models import describe_model, describe_stored_model
from stockpicker_dagster.training.platforms import Platform, platform
from stockpicker_dagster.training.platforms.costs import billed_seconds, estimate
from stockpicker_dagster.training.platforms.custom_models import ModelFolder
from stockpicker_dagster.training.platforms.following import Trained, training
from stockpicker_dagster.training.platforms.polling import Waiting, wait_for_all
from stockpicker_dagster.training.platforms.requests import TrainingJob
from stockpicker_dagster.training.tracking import configured, track

_AT_ONCE = 4
"""So many models are trained at a time where each has a machine of its own: quotas of new accounts are small."""
_LOG_SECONDS = 2.0
"""So often a step of a training is logged: each is an event that Dagster keeps."""


def train_periods(
    context: dg.AssetExecutionContext,
    form: StrategyForm,
    jobs: Mapping[str, TrainingJob],
    stored: Callable[[str], Path] | None = None,
) -> tuple[dict[str, Trained], dict[str, Any]]:
    """The models of all periods, several of them trained at a time on SageMaker, and metadata about the last.

    With a warm start each begins from the one of the period before, which it waits for: of this run, or what `stored`
    says of that period. A run that is cancelled stops the jobs that it waits for; one that was killed finds them again.
    """
    place = platform(form.training.runs_on, **form.training.platform_settings)
    curves: dict[str, list[Progress]] = {period: [] for period in jobs}
    trained: dict[str, Trained] = {}

    def work(period: str, cold: TrainingJob) -> Waiting[Trained]:
        heard, log = _Heard(context, period, curves[period]), JobLog(context, f"model of {period}")
        with _warm(form, period, cold, trained, stored) as job:
            trained[period] = yield from training(place, job, heard, context.log.info, log)
        return trained[period]

    works = {period: work(period, job) for period, job in sorted(jobs.items())}
    # On this machine a training uses every core, and a warm start needs the model before.
    wait_for_all(works, 1 if place.name == "local" or form.algorithm.warm_start else _AT_ONCE)
    tracked: list[str] = []
    for period, made in sorted(trained.items()):
        _keep_in_its_folder(place, form.owner, made)
        if configured():
            said = track(made.bundle, curves[period], made.used)
            (context.log.warning if said.startswith("not tracked") else context.log.info)(
                "model of %s: %s", period, said
            )
            tracked.append(said)
    last = trained[max(trained)]
    metadata = {
        "platform": place.name,
        "training_job": str(last.job["TrainingJobName"]),
        **{name: value for name, value in last.used.items() if name in ("cpu_seconds", "wall_seconds")},
        **({"peak_memory_mib": last.used["peak_memory_bytes"] / 2**20} if "peak_memory_bytes" in last.used else {}),
        **({"tracking": tracked[-1]} if tracked else {}),
        **estimate(place, place.training_resources, sum(billed_seconds(made.job) for made in trained.values())),
        **_curves(curves[max(trained)]),
    }
    return trained, metadata


def _keep_in_its_folder(place: Platform, owner: str, made: Trained) -> None:
    """Makes the model's folder on the platform, where its metadata says which job left its archive."""
    model = describe_model(made.bundle)
    artifact = made.job["ModelArtifacts"]["S3ModelArtifacts"]
    ModelFolder(place, owner, model["model_id"]).create(model, artifact, made.job["TrainingJobName"])


@contextmanager
def _warm(
    form: StrategyForm,
    period: str,
    job: TrainingJob,
    trained: Mapping[str, Trained],
    stored: Callable[[str], Path] | None,
) -> Iterator[TrainingJob]:
    """The job with the model that it begins from; as it is without a warm start, and for the first period of all."""
    if not form.algorithm.warm_start or stored is None or period == form.period_key(form.first_served):
        yield job
        return
    before = form.period_key(date.fromisoformat(period) - timedelta(days=1))
    assert before is not None
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "earlier"
        if before in trained:
            folder.mkdir()
            for name, content in trained[before].bundle.files.items():
                assert isinstance(content, bytes)
                (folder / name).write_bytes(content)
        else:
            folder = stored(before)
        model_id = str(describe_stored_model(folder)["model_id"])
        yield replace(job, settings=replace(job.settings, start_from=model_id), start_from=folder)


class _Heard:
    """Passes progress on to Dagster's log, not more often than it can be read, and keeps all of it."""

    def __init__(self, context: dg.AssetExecutionContext, period: str, kept: list[Progress]) -> None:
        self.context, self.period, self.kept = context, period, kept
        self.logged = -_LOG_SECONDS

    def __call__(self, progress: Progress) -> None:
        self.kept.append(progress)
        if time.monotonic() - self.logged >= _LOG_SECONDS or progress.step == progress.of:
            self.logged = time.monotonic()
            self.context.log.info(
                "model of %s: step %d of %d, loss %.6g, validation rank IC %.4f",
                self.period,
                progress.step,
                progress.of,
                progress.loss,
                progress.validation_rank_ic,
            )


def _curves(curve: Sequence[Progress]) -> dict[str, Any]:
    steps = [progress.step for progress in curve]
    figures = {name: [getattr(progress, name) for progress in curve] for name in ("loss", "validation_rank_ic")}
    pictures: dict[str, Any] = {}
    for name, values in figures.items():
        frame = pl.DataFrame({"step": steps, name: values}, schema={"step": pl.Int64, name: pl.Float64})
        pictures |= lines_plot(f"{name}_by_step", frame.filter(pl.col(name).is_finite()))
    return pictures
