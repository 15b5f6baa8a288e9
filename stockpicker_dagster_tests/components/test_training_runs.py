"""A step that trains: its log tells how it goes, its metadata how it went, and a cancelled run stops its job."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from stockpicker_dagster.components import training_runs
from stockpicker_dagster.components.training_runs import train_periods
from stockpicker_dagster.research.splits import walk_forward_periods
from stockpicker_dagster.training.container.settings import Settings
from stockpicker_dagster.training.models import EarlierModel, describe_model, train_model
from stockpicker_dagster.training.platforms.following import Trained
from stockpicker_dagster.training.platforms.local import LocalPlatform
from stockpicker_dagster.training.platforms.polling import Waiting
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


def test_a_warm_start_begins_from_the_period_before_of_this_run_or_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = strategy_form(algorithm={"name": "neural_network", "start": "warm"})
    folder = _stored(tmp_path / "dataset")
    quick = {"ensemble": 1, "epochs": 1, "hidden_layers": 1}
    begun: dict[str, str] = {}

    def trained_here(place: Any, job: TrainingJob, *rest: Any) -> Waiting[Trained]:
        yield 0.0
        named = job.settings
        earlier = None if job.start_from is None else EarlierModel(job.start_from, named.start_from)
        bundle = train_model("mine", named.period, job.dataset, named.algorithm, quick, 0, start_from=earlier)
        begun[named.period] = named.start_from
        return Trained(bundle, {"TrainingJobName": "here"})

    monkeypatch.setattr(training_runs, "training", trained_here)
    monkeypatch.setattr(training_runs, "_keep_in_its_folder", lambda *_: None)
    monkeypatch.setattr(training_runs, "platform", lambda name: LocalPlatform(tmp_path / "platform"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    first = form.period_key(form.first_served)
    assert first is not None
    keys = [each.key for each in walk_forward_periods(form.first_served, date(2023, 1, 1), "quarterly")]
    assert keys[0] == first
    jobs = {key: TrainingJob(Settings("neural_network", quick, 0, "mine", key), folder) for key in keys[:2]}
    context = dg.build_asset_context()
    made, _ = train_periods(context, form, jobs, lambda period: pytest.fail(f"{period} is of this run"))
    ids = {key: describe_model(each.bundle)["model_id"] for key, each in made.items()}
    assert begun == {keys[0]: "", keys[1]: ids[keys[0]]}
    later = {keys[2]: TrainingJob(Settings("neural_network", quick, 0, "mine", keys[2]), folder)}
    stored = tmp_path / "stored"
    stored.mkdir()
    for name, content in made[keys[1]].bundle.files.items():
        assert isinstance(content, bytes)
        (stored / name).write_bytes(content)
    train_periods(context, form, later, {keys[1]: stored}.__getitem__)
    assert begun[keys[2]] == ids[keys[1]]
    cold = strategy_form(algorithm={"name": "neural_network"})
    train_periods(context, cold, later, lambda period: pytest.fail("a cold start asks for no model"))
    assert begun[keys[2]] == ""


def test_a_search_runs_in_a_step_and_its_trials_are_told_and_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_runs, "platform", lambda name: LocalPlatform(tmp_path / "platform"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    form = strategy_form(algorithm={"name": "linear", "search": {"trials": 3, "over": {"alpha": [0.01, 100.0]}}})
    search = form.algorithm.search_settings
    assert search is not None
    settings = Settings("linear", {}, 0, "mine", "2023-06-01", search=search.as_text())
    job = TrainingJob(settings, _stored(tmp_path / "dataset"))
    kept: dict[str, Any] = {}

    @dg.asset
    def trained_model(context: dg.AssetExecutionContext) -> None:
        models, said = train_periods(context, form, {"2023-06-01": job})
        kept.update(models["2023-06-01"].bundle.files)
        context.add_output_metadata(said)

    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize([trained_model], instance=instance)
        log = [entry.user_message for entry in instance.all_logs(done.run_id)]
    assert any(line.startswith("model of 2023-06-01: step 3 of 3, ") for line in log)
    trials = json.loads(kept["search.json"])
    best = max(trials, key=lambda trial: trial["rank_ic"])
    assert json.loads(kept["model.json"])["chosen"]["alpha"] == best["hyperparameters"]["alpha"]
    assert kept == train_model("mine", "2023-06-01", job.dataset, "linear", {}, 0, search=search).files


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
