"""The image's recipe agrees with the project: its files and extras exist, and its entry point is the container's."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECIPE = (ROOT / "Dockerfile").read_text()


def _instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", RECIPE, re.MULTILINE)


def test_what_is_copied_exists_and_is_all_that_installing_reads() -> None:
    copied = [source for line in _instructions("COPY") for source in line.split()[:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"pyproject.toml", "stockpicker_dagster", project["readme"]} <= set(copied)


def test_extras_and_python_are_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [installed] = _instructions("RUN")
    extras = re.search(r"\.\[([^\]]*)\]", installed)
    assert extras is not None
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])
    assert "--constraint constraints.txt" in installed
    assert _instructions("FROM") == ["python:3.11-slim"]


def test_the_entry_point_is_in_exec_form_and_takes_train_and_serve() -> None:
    [entry] = _instructions("ENTRYPOINT")
    program, *arguments = json.loads(entry)
    assert program == "python"
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, "train|serve; given: nothing" in done.stderr) == (2, True)


def test_nothing_secret_is_in_it() -> None:
    assert not re.search(r"KEY|SECRET|TOKEN|PASSWORD|index-url", RECIPE, re.IGNORECASE)
