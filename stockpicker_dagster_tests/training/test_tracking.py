"""Trainings are told to MLflow once and completely, and nothing that goes wrong there costs a model."""

import importlib.util
import math
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from stockpicker_dagster.research.algorithms import Progress
from stockpicker_dagster.storage.lake import Bundle
from stockpicker_dagster.training.models import describe_model, train_model
from stockpicker_dagster.training.tracking import track
from stockpicker_dagster_tests.conftest import require


@pytest.fixture
def bundle(dataset_folder: Path) -> Bundle:
    return train_model("mine", "2023-06-01", dataset_folder, "linear", {"alpha": 1.0}, 0, "abc")


# Making a database takes MLflow many seconds of migrations; a folder is as real a store.
@pytest.fixture(params=["folder", pytest.param("database", marks=pytest.mark.long)])
def mlflow_store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of a real store, which the environment names."""
    require(importlib.util.find_spec("mlflow"), "mlflow (the extra `tracking`)")
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db" if request.param == "database" else (tmp_path / "store").as_uri()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return MlflowClient(tracking_uri=uri)


def test_a_model_is_told_of_once_with_all_that_made_it(mlflow_store: Any, bundle: Bundle, tmp_path: Path) -> None:
    curve = [Progress(1, 2, 0.5, 0.01), Progress(2, 2, 0.25, math.nan)]
    said = track(bundle, curve, {"cpu_seconds": 1.5})
    assert said.startswith("tracked as run ")
    experiment = mlflow_store.get_experiment_by_name("stockpicker/mine")
    [run] = mlflow_store.search_runs([experiment.experiment_id])
    model = describe_model(bundle)
    assert run.info.run_id == said.rpartition(" ")[2]
    assert run.info.status == "FINISHED"
    assert run.data.params["given.alpha"] == "1.0"
    assert {name: run.data.params[name] for name in ("data_version", "code_version", "algorithm", "period")} == {
        name: model[name] for name in ("data_version", "code_version", "algorithm", "period")
    }
    assert run.data.tags["model_id"] == model["model_id"]
    assert run.data.metrics["validation_rank_ic"] == model["metrics"]["validation_rank_ic"]
    assert run.data.metrics["cpu_seconds"] == 1.5
    history = mlflow_store.get_metric_history(run.info.run_id, "step/loss")
    assert [(each.step, each.value) for each in history] == [(1, 0.5), (2, 0.25)]
    assert [each.step for each in mlflow_store.get_metric_history(run.info.run_id, "step/validation_rank_ic")] == [1]
    artifacts = mlflow_store.download_artifacts(run.info.run_id, "model", str(tmp_path))
    assert {path.name: path.read_bytes() for path in Path(artifacts).iterdir()} == dict(bundle.files)
    assert not (tmp_path / "mlruns").exists()
    assert track(bundle) == f"tracked before as run {run.info.run_id}"
    assert len(mlflow_store.search_runs([experiment.experiment_id])) == 1


def test_a_server_that_is_down_is_a_sentence_without_its_password(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(importlib.util.find_spec("mlflow"), "mlflow (the extra `tracking`)")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    said = track(bundle)
    assert said.startswith("not tracked: ")
    assert "secret" not in said


def test_without_configuration_or_library_nothing_is_told(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert track(bundle) == "not tracked: MLFLOW_TRACKING_URI is not set"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert "mlflow is not installed; install the extra 'tracking'" in track(bundle)
