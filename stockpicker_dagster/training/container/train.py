"""`train`: learns from the channels, leaves the model, and says how it goes.

SIGTERM keeps what was learned so far among the checkpoints and ends; started again with the same settings and tables,
training goes on to the very bytes of one that was never stopped. Progress is one line a step on standard output.
"""

import json
import math
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.training.container.layout import FAILURE_CHARACTERS, Layout
from stockpicker_dagster.training.container.settings import read_settings

if TYPE_CHECKING:
    from stockpicker_dagster.storage.lake import Bundle

PROGRESS = "progress "
"""What a line of progress begins with; an object in JSON follows."""
STOPPED = 128 + signal.SIGTERM
"""The exit code of a training that was asked to stop."""


def train(layout: Layout) -> int:
    """Trains under `layout`; 0 if the model is there, 143 if it was stopped, 1 with a failure file else."""
    asked = _Asked()
    signal.signal(signal.SIGTERM, asked)
    stage = "starting"
    try:
        # Heavy imports come after the handler, so that a stop that comes early is heard.
        from stockpicker_dagster.research.algorithms import Progress, Supervision, TrainingStopped
        from stockpicker_dagster.training.container.channels import EARLIER, assemble_dataset
        from stockpicker_dagster.training.models import EarlierModel, describe_model, train_model
        from stockpicker_dagster.training.search import SearchSettings

        def report(progress: Progress) -> None:
            _say(PROGRESS + json.dumps({name: _finite(value) for name, value in vars(progress).items()}))

        try:
            stage = "reading the settings"
            settings = read_settings(layout.hyperparameters)
            with tempfile.TemporaryDirectory() as scratch:
                stage = "reading the channels"
                dataset = assemble_dataset(layout, settings, Path(scratch))
                if asked.now():
                    return STOPPED
                stage = "training"
                bundle = train_model(
                    settings.strategy,
                    settings.period,
                    dataset,
                    settings.algorithm,
                    dict(settings.hyperparameters),
                    settings.seed,
                    settings.definition,
                    settings.dataset_definition or None,
                    supervision=Supervision(report, asked.now, layout.checkpoints),
                    search=SearchSettings.of_text(settings.search),
                    start_from=EarlierModel(layout.data / EARLIER, settings.start_from)
                    if settings.start_from
                    else None,
                )
        except TrainingStopped as stopped:
            _say(f"stopped: {stopped}")
            return STOPPED
        stage = "writing the model"
        _leave(bundle, layout.model)
        described = describe_model(bundle)
        _say(f"model {described['model_id']}: {json.dumps(described['metrics'])}")
    except StockPickerError as error:
        return _fail(layout, str(error), "")
    except MemoryError:
        return _fail(layout, f"{stage} needs more memory than this machine has; choose a larger one", "")
    except OSError as error:
        return _fail(layout, f"{stage} failed: {error}", traceback.format_exc())
    except Exception as error:
        return _fail(layout, f"{stage} failed with {type(error).__name__}: {error}", traceback.format_exc())
    return 0


class _Asked:
    """Whether a stop was asked for."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def now(self) -> bool:
        return self.asked


def _leave(bundle: "Bundle", folder: Path) -> None:
    """The files of the model; each appears whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in bundle.files.items():
        fresh = folder / f".{name}.new"
        assert isinstance(content, bytes)
        fresh.write_bytes(content)
        fresh.rename(folder / name)


def _fail(layout: Layout, reason: str, details: str) -> int:
    """Says why on standard error and in the failure file, the reason within what is shown of it."""
    if len(reason) > FAILURE_CHARACTERS:
        reason = reason[: FAILURE_CHARACTERS - 4] + " ..."
    sys.stderr.write(f"{reason}\n{details}")
    sys.stderr.flush()
    try:
        layout.failure.parent.mkdir(parents=True, exist_ok=True)
        layout.failure.write_text("\n".join(filter(None, (reason, details))))
    except OSError as error:
        sys.stderr.write(f"the failure file cannot be written: {error}\n")
    return 1


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _say(line: str) -> None:
    # One write, so that lines of two threads never mix.
    os.write(sys.stdout.fileno(), f"{line}\n".encode())
