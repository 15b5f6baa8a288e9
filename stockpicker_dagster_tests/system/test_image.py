"""The images' recipes agree with the project: files and extras exist, and what they start is there.

What training and serving run in SageMaker, and what the code location and the console run, are two images.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAINING, LOCATION = ROOT / "deploy" / "training.Dockerfile", ROOT / "Dockerfile"
RECIPES = [LOCATION, TRAINING]


def _instructions(recipe: Path, name: str) -> list[str]:
    text = recipe.read_text().replace("\\\n", "")
    return re.findall(rf"^{name} (.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_what_is_copied_exists_and_is_all_that_installing_reads(recipe: Path) -> None:
    copied = [source for line in _instructions(recipe, "COPY") for source in line.split()[:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"pyproject.toml", "stockpicker_dagster", project["readme"]} <= set(copied)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_extras_and_python_are_the_projects(recipe: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [installed] = [each for each in _instructions(recipe, "RUN") if "pip install" in each]
    extras = re.search(r"\.\[([^\]]*)\]", installed)
    assert extras is not None
    defaults = dict(each.split("=", 1) for each in _instructions(recipe, "ARG"))
    named = defaults["EXTRAS"] if extras[1] == "$EXTRAS" else extras[1]
    assert set(named.split(",")) <= set(project["optional-dependencies"])
    assert "--constraint constraints.txt" in installed
    assert _instructions(recipe, "FROM") == ["python:3.11-slim"]


def test_the_entry_point_of_training_is_in_exec_form_and_takes_train_and_serve() -> None:
    [entry] = _instructions(TRAINING, "ENTRYPOINT")
    program, *arguments = json.loads(entry)
    assert program == "python"
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, "train|serve|compute; given: nothing" in done.stderr) == (2, True)


def test_the_code_location_runs_as_nobody_special_and_holds_everything_that_dagster_reads() -> None:
    assert _instructions(LOCATION, "USER") == ["stockpicker"]
    copied = {source for line in _instructions(LOCATION, "COPY") for source in line.split()[:-1]}
    assert {"dagster.yaml", "dagster.postgres.yaml", "workspace.yaml", "deploy/workspace.yaml"} <= copied
    [command] = _instructions(LOCATION, "CMD")
    words = json.loads(command)
    module, attribute = words[words.index("--module-name") + 1], words[words.index("--attribute") + 1]
    named = (ROOT / "workspace.yaml").read_text()
    assert f"module_name: {module}" in named
    assert f"attribute: {attribute}" in named
    # Strategies are the code location's; a training image has none.
    assert "strategies" not in (ROOT / ".dockerignore").read_text()
    assert "stockpicker_dagster/defs/strategies" in (ROOT / "deploy" / "training.Dockerfile.dockerignore").read_text()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_nothing_secret_is_in_it(recipe: Path) -> None:
    assert not re.search(r"(?i)(KEY|SECRET|TOKEN|PASSWORD)\w*=|index-url", recipe.read_text())
