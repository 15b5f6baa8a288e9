"""Where things are inside the container: the folders of SageMaker's contract under one root."""

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = "SM_ML_ROOT"
ENDPOINT_BODY = 6 * 2**20
"""So many bytes InvokeEndpoint takes at most."""
FAILURE_CHARACTERS = 1024
"""So much of the failure file becomes the job's `FailureReason`."""


@dataclass(frozen=True)
class Layout:
    """The folders and files under `root`, by default `/opt/ml`."""

    root: Path

    @classmethod
    def of_environment(cls) -> "Layout":
        """The layout under `SM_ML_ROOT`."""
        return cls(Path(os.environ.get(ROOT) or "/opt/ml").absolute())

    @property
    def config(self) -> Path:
        """Holds `hyperparameters.json`, `inputdataconfig.json` and `resourceconfig.json`."""
        return self.root / "input" / "config"

    @property
    def hyperparameters(self) -> Path:
        return self.config / "hyperparameters.json"

    @property
    def channels(self) -> Path:
        return self.config / "inputdataconfig.json"

    @property
    def resources(self) -> Path:
        return self.config / "resourceconfig.json"

    @property
    def data(self) -> Path:
        """One folder a channel."""
        return self.root / "input" / "data"

    @property
    def model(self) -> Path:
        """Where `train` leaves the artifact, and `serve` finds it."""
        return self.root / "model"

    @property
    def checkpoints(self) -> Path:
        """Kept from one attempt to the next, where the job has a checkpoint location."""
        return self.root / "checkpoints"

    @property
    def processing_input(self) -> Path:
        """What a processing job is given."""
        return self.root / "processing" / "input"

    @property
    def processing_output(self) -> Path:
        """Where a processing job leaves what it made."""
        return self.root / "processing" / "output"

    @property
    def message(self) -> Path:
        """Why a processing job failed; its first 1,024 characters are shown as the `ExitMessage`."""
        return self.root / "output" / "message"

    @property
    def failure(self) -> Path:
        """Why `train` failed; its first 1,024 characters are shown as the reason."""
        return self.root / "output" / "failure"
