"""A step that trains: its log tells how it goes, its metadata how it went, and a cancelled run stops its job."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from stockpicker_dagster.components import training_runs
from stockpicker_dagster.components.training_runs import train_periods
from stockpicker_dagster.training.container.settings import Settings
from stockpicker_dagster.training.models import describe_model
from stockpicker_dagster.training.platforms.local import LocalPlatform
from stockpicker_dagster.training.platforms.requests import TrainingJob
from stockpicker_dagster_tests.components.forms import strategy_form
from stockpicker_dagster_tests.training.platforms.test_following import _Slowly
from stockpicker_dagster_tests.training.small_strategy import dataset


def _stored(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in dataset().files.items():
        assert isinstance(content, bytes)
        (folder / name).write_bytes(content)
    return folder


def _job(folder: Path, period: str, **own: Any) -> TrainingJob:
    return TrainingJob(Settings("slow", own, 0, "mine", period), _stored(folder / "dataset"))


def _step(folder: Path, jobs: dict[str, TrainingJob], instance: dg.DagsterInstance) -> Iterator[Any]:
    """Runs a step that trains `jobs` on a platform under `folder`; its log and its metadata."""
    training_runs.platform = lambda name, **settings: _Slowly(folder / "platform")  # type: ignore[assignment]

    @dg.asset
    def trained_model(context: dg.AssetExecutionContext) -> None:
        models, said = train_periods(context, strategy_form(), jobs)
        periods = [describe_model(each.bundle)["period"] for each in models.values()]
        context.add_output_metadata({**said, "models": periods})

    done = dg.materialize([trained_model], instance=instance)
    yield [entry.user_message for entry in instance.all_logs(done.run_id)]
    yield done.asset_materializations_for_node("trained_model")[0].metadata


def test_progress_is_in_the_log_and_in_the_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_runs, "platform", None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    jobs = {period: _job(tmp_path, period, steps=5) for period in ("2023-06-01", "2023-07-01")}
    with dg.DagsterInstance.ephemeral() as instance:
        log, metadata = _step(tmp_path, jobs, instance)
    for period in jobs:
        assert f"model of {period}: step 1 of 5, loss 1, validation rank IC nan" in log
        assert f"model of {period}: step 5 of 5, loss 0.2, validation rank IC nan" in log
    assert metadata["platform"].value == "local"
    assert metadata["training_job"].value == jobs["2023-07-01"].name(1)
    assert metadata["models"].value == ["2023-06-01", "2023-07-01"]
    assert metadata["peak_memory_mib"].value > 1
    assert "loss_by_step" in metadata
    assert "validation_rank_ic_by_step" not in metadata


@pytest.mark.long
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_cancelled_run_stops_its_job_and_one_that_was_killed_finds_it(tmp_path: Path, ending: signal.Signals) -> None:
    here = LocalPlatform(tmp_path / "platform")
    job = _job(tmp_path, "2023-06-01", steps=100, seconds=0.05)
    step = subprocess.Popen([sys.executable, "-m", __name__, str(tmp_path)], env=os.environ, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len(here.read_log(job.name(1))[0]) < 3:
        assert time.monotonic() < until
        assert step.poll() is None
        time.sleep(0.05)
    step.send_signal(ending)
    step.wait(60)
    job_now = here.client.describe_training_job(TrainingJobName=job.name(1))
    if ending == signal.SIGKILL:
        assert job_now["TrainingJobStatus"] in ("InProgress", "Completed")
    with pytest.MonkeyPatch.context() as patched, dg.DagsterInstance.ephemeral() as instance:
        patched.setattr(training_runs, "platform", None)
        _, metadata = _step(tmp_path, {"2023-06-01": job}, instance)
    first = here.client.describe_training_job(TrainingJobName=job.name(1))["TrainingJobStatus"]
    if ending == signal.SIGTERM:
        assert first == "Stopped"
        assert metadata["training_job"].value == job.name(2)
    else:
        assert first == "Completed"
        assert metadata["training_job"].value == job.name(1)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with dg.DagsterInstance.ephemeral() as one:
        list(_step(folder, {"2023-06-01": _job(folder, "2023-06-01", steps=100, seconds=0.05)}, one))
