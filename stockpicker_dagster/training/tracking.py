"""Every training told to MLflow, where that is configured; a server that is down never costs a model.

`MLFLOW_TRACKING_URI` in the environment configures it, and the extra `tracking` brings the library. Each model is one
run of the experiment that is named after its strategy; a model that was told of before is not told of again.
"""

import logging
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stockpicker_dagster.home import home
from stockpicker_dagster.research.algorithms import Progress
from stockpicker_dagster.storage.lake import Bundle
from stockpicker_dagster.training.models import describe_model

URI = "MLFLOW_TRACKING_URI"
_BRIEFLY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Unless the environment says otherwise: MLflow's own patience with a server that is down is many minutes."""
_PARAMETER = 500


def configured() -> bool:
    """Whether trainings are told to MLflow."""
    return bool(os.environ.get(URI))


def track(bundle: Bundle, curve: Sequence[Progress] = (), used: Mapping[str, float] | None = None) -> str:
    """Tells of one model: parameters, versions of data and code, metrics, the steps of training, and its files.

    `used` is what the training used, by name. Returns what became of it, in words for a log; whatever goes wrong is in
    them and is raised nowhere.
    """
    if not configured():
        return f"not tracked: {URI} is not set"
    try:
        for name, value in _BRIEFLY.items():
            os.environ.setdefault(name, value)
        # Its own chatter, and its usage statistics, are switched off before it is imported.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        return _Tracked(os.environ[URI]).tell(bundle, curve, used or {})
    except ImportError:
        return f"not tracked: {URI} is set, and mlflow is not installed; install the extra 'tracking'"
    except Exception as error:
        # Whatever a library or a server does here, the model is trained and is kept.
        return f"not tracked: {type(error).__name__}: {_without_credentials(str(error))[:300]}"


class _Tracked:
    """One tracking server."""

    def __init__(self, uri: str) -> None:
        from mlflow import MlflowClient

        self.client: Any = MlflowClient(tracking_uri=uri)
        # A server says itself where artifacts go; a database beside us would drop them into the current folder.
        remote = uri.startswith(("http://", "https://", "databricks"))
        self.artifacts = None if remote else (home().root / "tracking").as_uri()

    def tell(self, bundle: Bundle, curve: Sequence[Progress], used: Mapping[str, float]) -> str:
        from mlflow.entities import Metric, Param, RunTag

        model = describe_model(bundle)
        experiment = self._experiment(f"stockpicker/{model['strategy']}")
        known = self.client.search_runs(
            [experiment], f"tags.model_id = '{model['model_id']}' and attributes.status = 'FINISHED'", max_results=1
        )
        if known:
            return f"tracked before as run {known[0].info.run_id}"
        run = self.client.create_run(experiment, run_name=str(model["period"])).info.run_id
        moment = int(time.time() * 1000)
        parameters = [Param(name, str(value)[:_PARAMETER]) for name, value in _parameters(model).items()]
        tags = [RunTag(name, str(model[name])) for name in ("model_id", "data_version", "code_version", "definition")]
        final = {**{name: value for name, value in model["metrics"].items() if value is not None}, **used}
        metrics = [Metric(name, float(value), moment, 0) for name, value in final.items()]
        for progress in curve:
            for name in ("loss", "validation_rank_ic"):
                value = getattr(progress, name)
                if value == value:
                    metrics.append(Metric(f"step/{name}", value, moment, progress.step))
        for first in range(0, max(1, len(metrics)), 500):
            some, more = metrics[first : first + 500], first == 0
            self.client.log_batch(run, some, parameters if more else [], tags if more else [])
        with tempfile.TemporaryDirectory() as folder:
            for name, content in bundle.files.items():
                assert isinstance(content, bytes)
                (Path(folder) / name).write_bytes(content)
            self.client.log_artifacts(run, folder, "model")
        self.client.set_terminated(run, "FINISHED")
        return f"tracked as run {run}"

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self.client.create_experiment(name, self.artifacts))
        except Exception:
            # Another run was quicker.
            found = self.client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)


def _parameters(model: Mapping[str, Any]) -> dict[str, Any]:
    given = {f"given.{name}": value for name, value in model["hyperparameters"].items()}
    chosen = {f"chosen.{name}": value for name, value in model["chosen"].items()}
    named = ("strategy", "period", "algorithm", "seed", "data_version", "code_version", "last_known")
    spans = {name: " to ".join(model[name]) for name in ("train", "validation")}
    return {**{name: model[name] for name in named}, **spans, "features": len(model["features"]), **given, **chosen}


def _without_credentials(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)
