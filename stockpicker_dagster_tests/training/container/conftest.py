"""What the tests of the container share: a root folder laid out as a platform lays it out."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from stockpicker_dagster.training.container.layout import Layout

Lay = Callable[..., Layout]
HYPERPARAMETERS = {"algorithm": "linear", "alpha": "1.0", "strategy": "mine", "period": "2023-06-01"}
FILES = {"train": "train.parquet", "validation": "validation.parquet", "captions": "captions.json"}


@pytest.fixture
def lay(tmp_path: Path, dataset_folder: Path) -> Lay:
    """Lays out a job; `channels` are file names to contents, by channel (None: those of the stored dataset)."""

    def put(
        hyperparameters: Mapping[str, Any] | None = None,
        channels: Mapping[str, Mapping[str, bytes]] | None = None,
        config: Mapping[str, Any] | None = None,
        hosts: tuple[str, ...] = ("algo-1",),
    ) -> Layout:
        layout = Layout(tmp_path / "ml")
        layout.config.mkdir(parents=True)
        stored = {name: {file: (dataset_folder / file).read_bytes()} for name, file in FILES.items()}
        given = stored if channels is None else channels
        for name, files in given.items():
            (layout.data / name).mkdir(parents=True)
            for file, content in files.items():
                (layout.data / name / file).write_bytes(content)
        layout.hyperparameters.write_text(json.dumps(HYPERPARAMETERS if hyperparameters is None else hyperparameters))
        layout.channels.write_text(
            json.dumps({name: {"TrainingInputMode": "File"} for name in given} | dict(config or {}))
        )
        layout.resources.write_text(json.dumps({"current_host": hosts[0], "hosts": list(hosts)}))
        return layout

    return put
