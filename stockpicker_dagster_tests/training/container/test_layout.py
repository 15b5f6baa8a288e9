"""Where the container looks for things."""

from pathlib import Path

import pytest

from stockpicker_dagster.training.container.layout import Layout


def test_the_root_is_sagemakers_unless_the_environment_says_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SM_ML_ROOT", raising=False)
    layout = Layout.of_environment()
    assert [str(path) for path in (layout.hyperparameters, layout.data, layout.model, layout.failure)] == [
        "/opt/ml/input/config/hyperparameters.json",
        "/opt/ml/input/data",
        "/opt/ml/model",
        "/opt/ml/output/failure",
    ]
    monkeypatch.setenv("SM_ML_ROOT", "/elsewhere")
    assert Layout.of_environment().checkpoints == Path("/elsewhere/checkpoints")
