"""The code version changes with every source of research and training, and with nothing else."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import stockpicker_dagster
from stockpicker_dagster.code_version import code_version


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package's sources that the version is taken of."""
    own = Path(stockpicker_dagster.__file__).parent
    copy = tmp_path / "package"
    shutil.copytree(own, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(stockpicker_dagster, "__file__", str(copy / "__init__.py"))
    code_version.cache_clear()
    yield copy
    code_version.cache_clear()


def version() -> str:
    code_version.cache_clear()
    return code_version()


def test_it_changes_with_the_sources_of_research_and_training_alone(package: Path) -> None:
    before = version()
    assert before == version()
    assert len(before) == 16
    for other in ("cli.py", "trading/risk.py"):
        (package / other).write_text("changed = True\n")
    assert version() == before
    (package / "research" / "__pycache__").mkdir()
    (package / "research" / "__pycache__" / "labels.pyc").write_bytes(b"1")
    assert version() == before
    seen = {before}
    for source in ("research/labels.py", "research/backtest/engine.py", "training/models.py"):
        (package / source).write_text((package / source).read_text() + "\n")
        seen.add(version())
    (package / "research" / "labels.py").rename(package / "research" / "renamed.py")
    seen.add(version())
    assert len(seen) == 5
