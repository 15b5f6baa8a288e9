"""The project's own promises: its files agree with each other, and its rooms import downwards only."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "stockpicker_dagster"
TESTS = ROOT / "stockpicker_dagster_tests"
PYTHONS = ("3.11", "3.12", "3.13")

# From the top down: a room imports only from rooms below it. Files stand for themselves.
ROOMS = (
    # The command and its files run what the front door loads, so they stand above it.
    "cli",
    "commands",
    "health",
    "aws_health",
    "summaries",
    "exports",
    "price_desk",
    "demo",
    "runs",
    "definitions",
    "console",
    "defs",
    "cold_start",
    "components",
    "tear_sheet",
    "evaluation",
    "strategy_form",
    "trading",
    "training",
    "research",
    "market",
    "compute",
    "storage",
    "home",
    "code_version",
    "errors",
)


# Tests of one promise that several files keep together; every other test file is named after the file it tests.
OF_SEVERAL_FILES = {
    "market/sources/test_conformance.py",
    "research/backtest/test_dating.py",
    "research/backtest/test_vectorbt.py",
    "trading/brokers/test_conformance.py",
    "trading/test_any_broker.py",
    "training/platforms/test_conformance.py",
}


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def _environment(python: str) -> dict[str, str]:
    return default_environment() | {"python_version": python, "python_full_version": f"{python}.0"}


def _pinned(pins: list[Requirement], python: str) -> dict[str, Version]:
    environment = _environment(python)
    found: dict[str, Version] = {}
    for pin in pins:
        [specifier] = pin.specifier
        assert (specifier.operator, pin.url) == ("==", None), f"{pin} is no exact version"
        if pin.marker is None or pin.marker.evaluate(environment):
            name = canonicalize_name(pin.name)
            assert name not in found, f"{name} has two versions on Python {python}"
            found[name] = Version(specifier.version)
    return found


def _requirements(project: dict) -> Iterator[Requirement]:
    for text in chain(project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()):
        requirement = Requirement(text)
        if requirement.name != project["project"]["name"]:
            yield requirement


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_pin_every_dependency_within_its_bounds(
    project: dict, pins: list[Requirement], python: str
) -> None:
    pinned = _pinned(pins, python)
    for requirement in _requirements(project):
        if requirement.marker and not requirement.marker.evaluate(_environment(python)):
            continue
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in constraints.txt: run `make constraints`"
        assert requirement.specifier.contains(version), f"{requirement} does not allow the pinned {version}"


def test_every_dependency_says_what_it_is_for() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    listed = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    lines = [
        line for line in listed.splitlines() if line.strip().startswith('"') and "stockpicker-dagster[" not in line
    ]
    assert len(lines) > 30
    assert [line.strip() for line in lines if not re.search(r'", +# \S{3}', line)] == []


def test_the_extra_all_is_every_extra_that_users_can_have(project: dict) -> None:
    extras = project["project"]["optional-dependencies"]
    [everything] = extras["all"]
    assert Requirement(everything).extras == set(extras) - {"all", "dev", "peers"}


def test_dagsters_files_name_the_same_code_location(project: dict) -> None:
    [location] = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    module = location["python_module"]
    dg = project["tool"]["dg"]
    assert dg["directory_type"] == "project"
    assert module["location_name"] == dg["project"]["code_location_name"] == "stockpicker"
    assert module["module_name"] == f"{dg['project']['root_module']}.definitions"
    assert module["attribute"] == "defs"
    assert module["working_directory"] == "."
    assert "dagster" not in project["tool"]


def test_dagster_accepts_its_settings_and_sends_no_telemetry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster import DagsterInstance

    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_bytes((ROOT / "dagster.yaml").read_bytes())
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.telemetry_enabled
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 1
        assert instance.run_monitoring_enabled


def _make(*arguments: str) -> str:
    # Being run by make itself must not change what make says.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["demo"], "stockpicker demo"),
        (["demo", "AS_OF=2024-07-04", "ARGS=--json"], "stockpicker demo --as-of 2024-07-04 --json"),
        (["demo", "SOURCE=prices.parquet"], "stockpicker demo --source prices.parquet"),
        (["up", "ARGS=--port 4000"], "stockpicker up --port 4000"),
    ],
)
def test_make_passes_on_what_it_is_given(arguments: list[str], command: str) -> None:
    assert " ".join(_make(*arguments).splitlines()[-1].split()) == f".venv/bin/{command}"


def test_make_names_the_allowed_pythons_when_there_is_none(project: dict, tmp_path: Path) -> None:
    assert project["project"]["requires-python"] == ">=3.11,<3.14"
    for python in ("", "/bin/false"):
        done = subprocess.run(
            ["make", "install", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode != 0
        assert "Python 3.11 to 3.13" in done.stderr
        assert not (tmp_path / "venv").exists()


def test_nothing_names_a_package_host() -> None:
    hosts = re.compile(r"https?://[^\s\"']*(pypi|pythonhosted|files\.python|/simple)|--(extra-)?index-url|--find-links")
    for name in ("constraints.txt", "pyproject.toml", ".ci/run"):
        assert hosts.findall((ROOT / name).read_text()) == [], name


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _imports(file: Path) -> Iterator[str]:
    """The modules that a file imports anywhere, inside functions too, under their full names."""
    here = list(file.relative_to(ROOT).with_suffix("").parts)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: -node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("file", _modules(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_one_way(file: Path) -> None:
    own = file.relative_to(PACKAGE).with_suffix("").parts[0]
    if own == "__init__":
        assert list(_imports(file)) == []
        return
    assert own in ROOMS, f"{own} has no place in the list of rooms"
    upwards = {
        module
        for module in _imports(file)
        if module.startswith("stockpicker_dagster.") and ROOMS.index(_room(module)) < ROOMS.index(own)
    }
    assert upwards == set()


@pytest.mark.parametrize(
    "file", sorted((PACKAGE / "research").rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_research_is_pure(file: Path) -> None:
    """No Dagster, no network, no database, no environment and no clock; how many cores there are is no input."""
    worldly = {"dagster", "socket", "subprocess", "requests", "urllib", "httpx", "boto3", "sqlalchemy", "time"}
    assert {module.split(".")[0] for module in _imports(file)} & worldly == set()
    text = file.read_text()
    assert re.search(r"\b(datetime\.now|date\.today|utcnow|time\.time)\b", text) is None
    assert set(re.findall(r"\bos\.(\w+)", text)) <= {"cpu_count"}


def test_the_package_itself_imports_nothing_heavy() -> None:
    """The training container and the trader never load Dagster."""
    code = """
import sys, stockpicker_dagster, stockpicker_dagster.errors, stockpicker_dagster.home, stockpicker_dagster.trading
import stockpicker_dagster.training, stockpicker_dagster.research, stockpicker_dagster.market
heavy = {"dagster", "torch", "pyspark", "sagemaker", "sklearn", "pandas", "polars", "numba", "matplotlib"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_test_file_mirrors_a_file_of_the_package() -> None:
    strays = []
    for test in TESTS.rglob("test_*.py"):
        where = test.relative_to(TESTS)
        if where.parts[0] == "system" or str(where) in OF_SEVERAL_FILES:
            continue
        mirrored = PACKAGE / where.parent / where.name.removeprefix("test_")
        # A room's `__init__` is tested by the file named after the room.
        if not (mirrored.exists() or mirrored.stem == mirrored.parent.name or mirrored.with_suffix("").is_dir()):
            strays.append(str(where))
    assert strays == []
