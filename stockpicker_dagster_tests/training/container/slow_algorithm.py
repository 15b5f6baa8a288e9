"""An algorithm that takes its time and keeps checkpoints, and a `train` that knows it; no test lives here.

`python -m stockpicker_dagster_tests.training.container.slow_algorithm train` is the container with one more algorithm:
its score is a sum over steps of random numbers, so that a step done twice or left out changes the model.
"""

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research import algorithms
from stockpicker_dagster.research.algorithms import (
    UNSUPERVISED,
    Hyperparameter,
    Progress,
    Supervision,
    TrainingStopped,
    Value,
    validate_hyperparameters,
)

NAME = "slow"


class SlowAlgorithm:
    """Adds up a random number for each of `steps`, and sleeps `seconds` at each."""

    name: ClassVar[str] = NAME
    warm_starts: ClassVar[bool] = False
    hyperparameters: ClassVar[tuple[Hyperparameter, ...]] = (
        Hyperparameter("steps", int, 3, "How many.", "steps", minimum=1),
        Hyperparameter("seconds", float, 0.0, "How slow.", "seconds", minimum=0),
        Hyperparameter("fails", str, "never", "How it fails.", "words", words=("never", "panics", "eats", "is killed")),
    )

    def __init__(self, features: Sequence[str], total: float) -> None:
        self.features, self.label, self.total = tuple(features), "label", total
        self.chosen: dict[str, Value] = {}
        self.metrics = {"validation_rank_ic": math.nan}

    @classmethod
    def fit(
        cls,
        train: pl.DataFrame,
        validation: pl.DataFrame,
        features: Sequence[str],
        label: str,
        hyperparameters: Mapping[str, object] | None = None,
        seed: int = 0,
        supervision: Supervision = UNSUPERVISED,
        **others: Any,
    ) -> "SlowAlgorithm":
        settings = validate_hyperparameters(NAME, hyperparameters)
        if settings["fails"] == "panics":
            raise ZeroDivisionError("no number can be divided by nothing")
        if settings["fails"] == "eats":
            raise MemoryError
        if settings["fails"] == "is killed":
            import os
            import signal

            os.kill(os.getpid(), signal.SIGKILL)
        kept = supervision.checkpoints / "state.json" if supervision.checkpoints else None
        done, total = json.loads(kept.read_text()) if kept and kept.exists() else (0, 0.0)
        steps, seconds = int(str(settings["steps"])), float(str(settings["seconds"]))
        for step in range(done, steps):
            time.sleep(seconds)
            total += float(np.random.default_rng([seed, step]).normal())
            supervision.progress(Progress(step + 1, steps, 1.0 / (step + 1), math.nan))
            if supervision.stop():
                if kept:
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    kept.write_text(json.dumps([step + 1, total]))
                raise TrainingStopped(f"stopped after step {step + 1} of {steps}")
        return cls(features, total)

    def predict(self, values: Any, features: Sequence[str]) -> Any:
        return np.full(len(values), self.total)

    def save(self, directory: Path) -> None:
        (directory / "slow.json").write_text(json.dumps({"features": self.features, "total": self.total}))

    @classmethod
    def load(cls, directory: Path) -> "SlowAlgorithm":
        try:
            document = json.loads((directory / "slow.json").read_text())
        except OSError as error:
            raise InvalidInput("no model") from error
        return cls(document["features"], document["total"])


def register() -> None:
    """Makes the algorithm known to this process."""
    sys.modules["stockpicker_dagster.research.algorithms.slow_algorithm"] = sys.modules[__name__]
    entry = next(iter(algorithms._ALGORITHMS.values()))
    algorithms._ALGORITHMS[NAME] = type(entry)("slow_algorithm", "SlowAlgorithm")


if __name__ == "__main__":
    from stockpicker_dagster.training.container.__main__ import main

    register()
    sys.exit(main(sys.argv[1:]))
