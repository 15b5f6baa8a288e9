"""Artifacts of any algorithm are data: what is in a file is never executed, followed or trusted."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms import algorithm, documents, known_algorithms
from stockpicker_dagster.research.algorithms.documents import read_document, write_document


class Bomb:
    """A pickle of it makes a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", known_algorithms())
def test_a_pickle_under_the_names_of_an_artifact_is_not_executed(name: str, tmp_path: Path) -> None:
    executed, folder = tmp_path / "executed", tmp_path / "model"
    folder.mkdir()
    for suffix in ("json", "safetensors", "pkl", "pt"):
        (folder / f"{name}.{suffix}").write_bytes(pickle.dumps(Bomb(executed)))
    with pytest.raises(InvalidInput, match="cannot be read"):
        algorithm(name).load(folder)
    assert not executed.exists()
    pickle.loads((folder / f"{name}.json").read_bytes())
    assert executed.exists()


@pytest.mark.parametrize("name", known_algorithms())
@pytest.mark.parametrize("content", ["[" * 100_000, "[]", '{"format": 1}', "", '"/etc/passwd"'])
def test_what_is_no_document_is_refused(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.json").write_text(content)
    with pytest.raises(InvalidInput, match="train it again"):
        algorithm(name).load(tmp_path)


def written(folder: Path) -> Path:
    path = folder / "model.json"
    write_document(path, "mine", "label", ("a", "b"), {"x": 1}, {"ic": float("nan")}, {"numbers": [1.5, 2]})
    return path


def test_a_document_comes_back_and_a_missing_metric_is_nan(tmp_path: Path) -> None:
    document = read_document(written(tmp_path), "mine", {"numbers": list})
    assert document["features"] == ["a", "b"]
    assert document["metrics"]["ic"] != document["metrics"]["ic"]
    assert documents.numbers(document, "numbers", tmp_path).tolist() == [1.5, 2.0]


@pytest.mark.parametrize(
    "change",
    [
        {"label": {"path": "/etc/passwd"}},
        {"features": "/etc/passwd"},
        {"features": ["a", 1]},
        {"metrics": {"ic": "x"}},
        {"metrics": {"ic": True}},
        {"numbers": "1"},
        {"format": 9},
    ],
)
def test_a_field_of_another_kind_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InvalidInput, match="train it again"):
        read_document(path, "mine", {"numbers": list})


def test_a_document_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path)
    monkeypatch.setattr(documents, "LARGEST", 10)
    with pytest.raises(InvalidInput, match="more than 10"):
        read_document(path, "mine", {})


@pytest.mark.parametrize("value", [True, "1", None, float("inf"), 10**30])
def test_only_finite_numbers_are_numbers(value: object, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="other than finite numbers in 'n'"):
        documents.numbers({"n": [1, value]}, "n", tmp_path)
    with pytest.raises(InvalidInput, match="other than whole numbers in 'n'"):
        documents.numbers({"n": [1.0]}, "n", tmp_path, whole=True)
