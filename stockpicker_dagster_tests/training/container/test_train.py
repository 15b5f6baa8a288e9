"""`train` as a platform runs it: a process, files in, files and an exit code out."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stockpicker_dagster.research.algorithms import known_algorithms
from stockpicker_dagster.training.container import train as module
from stockpicker_dagster.training.container.channels import EARLIER
from stockpicker_dagster.training.container.layout import Layout
from stockpicker_dagster.training.models import EarlierModel, describe_model, train_model
from stockpicker_dagster_tests.training.container.conftest import FILES, HYPERPARAMETERS, Lay

CONTAINER = "stockpicker_dagster.training.container"
SLOW = "stockpicker_dagster_tests.training.container.slow_algorithm"
SLOWLY = {
    "algorithm": "slow",
    "strategy": "mine",
    "period": "2023-06-01",
    "steps": "20",
    "seconds": "0.05",
    "seed": "3",
}


def _start(layout: Layout, what: str = CONTAINER, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", what, *(arguments or ("train",))]
    environment = os.environ | {"SM_ML_ROOT": str(layout.root)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _ended(process: "subprocess.Popen[str]", patience: float = 120) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=patience)
    return process.returncode, out, errors


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_model_is_byte_for_byte_the_one_trained_in_process(lay: Lay, dataset_folder: Path) -> None:
    layout = lay()
    code, out, errors = _ended(_start(layout))
    assert (code, errors) == (0, "")
    bundle = train_model("mine", "2023-06-01", dataset_folder, "linear", {"alpha": 1.0}, 0)
    assert _files(layout.model) == dict(sorted(bundle.files.items()))
    assert not layout.failure.exists()
    [progress] = [
        json.loads(line.removeprefix("progress ")) for line in out.splitlines() if line.startswith("progress")
    ]
    assert (progress["step"], progress["of"]) == (1, 1)
    assert isinstance(progress["validation_rank_ic"], float)


def test_learning_begins_from_the_model_in_the_channel_that_the_settings_name(lay: Lay, dataset_folder: Path) -> None:
    quick = {"ensemble": 1, "epochs": 1, "hidden_layers": 1}
    cold = train_model("mine", "2023-05-01", dataset_folder, "neural_network", quick, 0)
    model_id = describe_model(cold)["model_id"]
    own = {name: json.dumps(value) for name, value in quick.items()}
    named = {"algorithm": "neural_network", "strategy": "mine", "period": "2023-06-01", "start_from": model_id, **own}
    files = {name: {file: (dataset_folder / file).read_bytes()} for name, file in FILES.items()}
    layout = lay(named, {**files, EARLIER: cold.files})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(signal, "signal", lambda *_: None)
        assert module.train(layout) == 0
    earlier = EarlierModel(layout.data / EARLIER, model_id)
    warm = train_model("mine", "2023-06-01", dataset_folder, "neural_network", quick, 0, start_from=earlier)
    assert _files(layout.model) == dict(sorted(warm.files.items()))
    assert describe_model(warm)["start_from"] == model_id


def test_a_stopped_training_goes_on_to_the_very_bytes_of_one_that_was_not(lay: Lay, tmp_path: Path) -> None:
    layout = lay(hyperparameters=SLOWLY)
    first = _start(layout, SLOW)
    assert first.stdout is not None
    lines = [first.stdout.readline() for _ in range(3)]
    assert all(line.startswith("progress") for line in lines)
    first.send_signal(signal.SIGTERM)
    code, out, _ = _ended(first)
    assert code == 128 + signal.SIGTERM
    assert "stopped after step" in out
    assert not layout.model.exists() or not _files(layout.model)
    assert not layout.failure.exists()
    code, out, _ = _ended(_start(layout, SLOW))
    resumed = json.loads(out.splitlines()[0].removeprefix("progress "))
    assert (code, resumed["step"] > 3) == (0, True)
    whole = Layout(tmp_path / "whole")
    whole.root.mkdir()
    (whole.root / "input").symlink_to(layout.root / "input")
    code, out, _ = _ended(_start(whole, SLOW))
    assert (code, len([line for line in out.splitlines() if line.startswith("progress")])) == (0, 20)
    assert _files(whole.model) == _files(layout.model)


KILLED = {
    "linear": ({"method": "elastic_net"}, 0),
    "boosted_trees": ({"trees": "300", "patience": "none"}, 3),
    "neural_network": ({"ensemble": "2", "epochs": "4", "patience": "none"}, 5),
    "deep_reinforcement_learning": ({"steps": "12288"}, 2),
}
"""Settings of each algorithm, and after how many lines of progress its training is killed."""


@pytest.mark.long
@pytest.mark.parametrize("name", known_algorithms())
def test_a_killed_training_goes_on_to_the_very_bytes_of_one_that_was_not(lay: Lay, tmp_path: Path, name: str) -> None:
    settings, lines = KILLED[name]
    layout = lay({"algorithm": name, "strategy": "mine", "period": "2023-06-01", "seed": "3", **settings})
    first = _start(layout)
    assert first.stdout is not None
    for _ in range(lines):
        assert first.stdout.readline().startswith("progress")
    first.kill()
    assert _ended(first)[0] == -signal.SIGKILL
    assert not layout.model.exists() or not _files(layout.model)
    code, again, errors = _ended(_start(layout))
    assert code == 0, errors
    whole = Layout(tmp_path / "whole")
    whole.root.mkdir()
    (whole.root / "input").symlink_to(layout.root / "input")
    code, out, errors = _ended(_start(whole))
    assert code == 0, errors
    assert _files(whole.model) == _files(layout.model)
    if name in ("neural_network", "deep_reinforcement_learning"):
        # What takes long does not begin again.
        assert again.count("progress ") <= out.count("progress ") - lines + 1


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"fails": "panics"}, "training failed with ZeroDivisionError: no number can be divided by nothing"),
        ({"fails": "eats"}, "training needs more memory than this machine has"),
        ({"steps": "0"}, "hyperparameter steps 0 is not allowed; allowed: int of at least 1 (steps)"),
    ],
)
def test_a_failure_says_why_in_what_is_shown_of_it(
    lay: Lay, monkeypatch: pytest.MonkeyPatch, own: dict[str, str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    from stockpicker_dagster_tests.training.container import slow_algorithm

    monkeypatch.setattr(module.signal, "signal", lambda *_: None)
    before = dict(slow_algorithm.algorithms._ALGORITHMS)
    slow_algorithm.register()
    try:
        layout = lay(hyperparameters=SLOWLY | own)
        assert module.train(layout) == 1
    finally:
        slow_algorithm.algorithms._ALGORITHMS.clear()
        slow_algorithm.algorithms._ALGORITHMS.update(before)
    assert layout.failure.read_text()[:1024].startswith(said)
    assert said in capfd.readouterr().err
    assert not layout.model.exists()


def test_a_long_reason_is_cut_and_its_details_follow(lay: Lay) -> None:
    layout = lay(hyperparameters=HYPERPARAMETERS | {"algorithm": "x" * 3000})
    assert module._fail(layout, "x" * 3000, "Traceback ...") == 1
    assert layout.failure.read_text() == "x" * 1020 + " ...\nTraceback ..."


def test_a_model_that_cannot_be_written_is_a_failure_that_says_so(lay: Lay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.signal, "signal", lambda *_: None)
    layout = lay()
    layout.model.write_text("no folder")
    assert module.train(layout) == 1
    assert layout.failure.read_text().startswith("writing the model failed: [Errno 17] File exists")


def test_the_container_takes_train_and_serve_and_never_loads_dagster(lay: Lay) -> None:
    code, _, errors = _ended(_start(lay(), CONTAINER, "learn"))
    assert (code, errors) == (2, f"usage: python -m {CONTAINER} train|serve|compute; given: learn\n")
    script = f"""
import sys
import {CONTAINER}.train, {CONTAINER}.serve, {CONTAINER}.channels, stockpicker_dagster.training.models
import stockpicker_dagster.research.algorithms.linear
print(sorted({{"dagster", "pandas", "sqlalchemy", "boto3", "matplotlib"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_stop_that_comes_at_once_is_heard(lay: Lay, dataset_folder: Path) -> None:
    layout = lay(hyperparameters=SLOWLY | {"seconds": "0.5"})
    process = _start(layout, SLOW)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    code, _, _ = _ended(process, 60)
    assert code in (-signal.SIGTERM, 128 + signal.SIGTERM)
