"""The pages tell the truth: commands on them run, links lead somewhere, and tables say what the code declares.

Every `sh` block follows a comment that says how it is tested: `run: quick`, `run: long` (by `make test-all`), or
`not run:` and why. Blocks are run in a copy of the project, so that they may change strategies and state.
"""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import get_args

import click
import dagster as dg
import polars as pl
import pytest

from stockpicker_dagster.cli import main
from stockpicker_dagster.components import checks
from stockpicker_dagster.components.account_orders import EXECUTIONS_SCHEMA
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.fundamentals.facts import FACTS_SCHEMA
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA, PRICES_SCHEMA, QUARANTINE_SCHEMA
from stockpicker_dagster.research.backtest.days import BACKTEST_SCHEMA
from stockpicker_dagster.research.backtest.significance.verdict import STRONG, WEAK
from stockpicker_dagster.research.features.declaration import feature_set
from stockpicker_dagster.research.features.honesty import try_on_invented_prices
from stockpicker_dagster.research.plan import PLAN_SCHEMA
from stockpicker_dagster.strategy_form import LimitsForm
from stockpicker_dagster.strategy_form.feature_module import FOLDER, feature_module
from stockpicker_dagster.trading.proposal import State
from stockpicker_dagster.trading.risk import Limits
from stockpicker_dagster.training.scoring import PREDICTIONS_SCHEMA
from stockpicker_dagster_tests.system.test_project import ROOMS

pytestmark = pytest.mark.xdist_group("docs")

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACEHOLDER = "0bec98bbc8e1"
"""The proposal's id on the pages; the demo prints another one."""

_BLOCK = re.compile(r"(?:<!-- (?P<note>[^>]*?) -->\n *)?```(?:sh|console)\n(?P<script>.*?)```", re.DOTALL)
_NOTE = re.compile(r"run: (?P<pace>quick|long)(, exit (?P<code>\d+): \S.*)?|not run: \S.*")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One block of commands: its page, the comment before it, and the commands."""

    page: str
    note: str
    script: str

    @property
    def pace(self) -> str | None:
        """`quick`, `long`, or None where it is not run."""
        read = _NOTE.fullmatch(self.note)
        return read["pace"] if read else None

    @property
    def exit_code(self) -> int:
        read = _NOTE.fullmatch(self.note)
        return int(read["code"] or 0) if read else 0

    def __str__(self) -> str:
        return f"{self.page}: {self.script.strip().splitlines()[0][:60]}"


def _blocks() -> list[Block]:
    return [
        Block(page.name, block["note"] or "", block["script"])
        for page in PAGES
        for block in _BLOCK.finditer(page.read_text())
    ]


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _page(name: str) -> str:
    return (ROOT / name).read_text()


def _section(page: str, heading: str) -> str:
    """The text from a heading to the next one of its level or above."""
    level = len(heading) - len(heading.lstrip("#"))
    _, found, rest = page.partition(f"\n{heading}\n")
    assert found, f"no heading {heading!r}"
    return re.split(rf"\n#{{1,{level}}} ", rest)[0]


def _first_cells(table: str) -> list[str]:
    """The first cell of every row of the tables in a text, as code."""
    return re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)


# Commands -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Project:
    """A copy of the project, with a state folder of its own, in which a reader types."""

    root: Path
    _done: dict[str, subprocess.CompletedProcess[str]] = field(default_factory=dict)

    def once(self, block: Block) -> subprocess.CompletedProcess[str]:
        """Runs a block, unless another test has; several may look at what it said."""
        if block.script not in self._done:
            self._done[block.script] = self.run(block.script, block.exit_code)
        return self._done[block.script]

    def run(self, script: str, expected: int = 0) -> subprocess.CompletedProcess[str]:
        """Runs a block as a shell would, ending at the first command that fails."""
        mine = ("STOCKPICKER_", "DAGSTER_HOME", "MAKE", "MFLAGS", "NUMBA_CACHE")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
        done = subprocess.run(
            ["sh", "-ec", script],
            cwd=self.root,
            env=environment | {"PYTHONPATH": str(self.root), "DAGSTER_DISABLE_TELEMETRY": "yes"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == expected, (
            f"{script}\nexit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
        return done

    @property
    def lake(self) -> Path:
        return self.root / ".stockpicker" / "lake"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("docs") / "project"
    shutil.copytree(
        ROOT / "stockpicker_dagster", root / "stockpicker_dagster", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, root)
    programs = root / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("stockpicker", "dagster", "dg"):
        shutil.copy(Path(sys.executable).parent / name, programs)
    # Tells make that the virtual environment is up to date.
    (root / ".venv" / ".installed").touch()
    return Project(root)


def test_every_block_of_commands_is_run_or_says_why_not() -> None:
    assert len(_blocks()) >= 10
    assert [str(block) for block in _blocks() if not _NOTE.fullmatch(block.note)] == []


@pytest.mark.parametrize("block", [block for block in _blocks() if block.pace == "quick"], ids=str)
def test_quick_commands_run(project: Project, block: Block) -> None:
    done = project.once(block)
    assert "Traceback" not in done.stderr
    assert done.stdout or block.exit_code


def test_a_strategy_without_its_files_names_them(project: Project) -> None:
    [block] = [each for each in _blocks() if "run sp500_linear" in each.script]
    assert str(project.root / ".stockpicker" / "files" / "sp500_prices.parquet") in project.once(block).stderr


def test_a_mistake_is_answered_as_the_readme_shows(project: Project) -> None:
    [shown] = re.findall(r"^Error: \.\.\.(.*)$", _page("README.md"), re.MULTILINE)
    folder = project.root / "stockpicker_dagster" / "defs" / "strategies"
    shutil.copytree(folder / "quickstart", folder / "my_strategy")
    try:
        form = folder / "my_strategy" / "defs.yaml"
        form.write_text(form.read_text().replace("seed: 7", "seed: -1"))
        assert project.run(".venv/bin/stockpicker run quickstart", 1).stderr.strip().endswith(shown)
    finally:
        shutil.rmtree(folder / "my_strategy")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_demo_and_every_slow_command_run_as_printed(project: Project) -> None:
    told = project.run("make demo").stdout
    for heading in ("most undervalued", "random books with the same turnover and costs", "proposed rebalance", "next:"):
        assert heading in told
    approve, export, up = told.split("next:\n")[1].strip().splitlines()
    assert up.split() == [".venv/bin/stockpicker", "up"]
    assert "filled" in project.run(approve).stdout
    assert Path(project.run(export).stdout.strip()).is_file()
    before = _digests(project.lake, "simulated", "quickstart")
    for block in _blocks():
        if block.pace == "long":
            project.run(block.script.replace(PLACEHOLDER, approve.split()[-1]), block.exit_code)
    # Running days again, on the command line and through Dagster's own commands, changes no byte.
    assert _digests(project.lake, "simulated", "quickstart") == before


def _digests(lake: Path, *folders: str) -> Mapping[str, str]:
    files = [
        file for folder in folders for file in (lake / folder).rglob("*") if file.is_file() and file.name != ".lock"
    ]
    return {str(file.relative_to(lake)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


# What the pages say ---------------------------------------------------------------------------------------------------


def test_the_readmes_first_screen_has_both_commands_and_a_picture() -> None:
    screen = "\n".join(_page("README.md").splitlines()[:22])
    assert re.search(r"^make demo\b", screen, re.MULTILINE)
    assert re.search(r"^make test\b", screen, re.MULTILINE)
    assert re.search(r"!\[[^\]]+\]\(docs/images/\w+\.png\)", screen)


def test_pictures_are_small_and_shown() -> None:
    pictures = sorted((ROOT / "docs" / "images").iterdir())
    text = "".join(page.read_text() for page in PAGES)
    assert [picture.name for picture in pictures if f"images/{picture.name}" not in text] == []
    assert [picture.name for picture in pictures if picture.stat().st_size > 200_000] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in _LINK.findall(page.read_text()):
        if re.match(r"https?:", link):
            continue
        place, _, anchor = link.partition("#")
        target = page.parent / place if place else page
        if not target.is_file() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_tables_say_what_the_code_declares() -> None:
    """Fields, features and reasons alike; `.venv/bin/python docs/reference_tables.py` puts the pages right."""
    reference = _module("reference_tables")
    pages = [page.read_text() for page in reference.PAGES]
    assert sorted(name for page in pages for name in reference.tables_on(page)) == sorted(reference.tables())
    assert [reference.with_tables(page) for page in pages] == pages


def test_every_field_and_every_feature_has_a_row() -> None:
    reference, page = _module("reference_tables"), _page("docs/user-guide.md")
    parts = reference.forms()
    for name, form in parts.items():
        prefix = "" if name == "strategy" else f"{name}."
        own = [known for known in form.model_fields if prefix + known not in parts]
        table = page.split(f"<!-- table: {name} -->")[1].split("<!-- end of table -->")[0]
        assert _first_cells(table) == own, name
    features = _page("docs/features.md")
    for name in ("factors", "alpha158", "multi_factor"):
        table = features.split(f"<!-- table: features.{name} -->")[1].split("<!-- end of table -->")[0]
        firsts = " ".join(line.split("|")[1] for line in table.strip().splitlines())
        assert re.findall(r"`([^`]+)`", firsts) == list(feature_set(name).names)


def test_the_sets_are_as_large_as_the_page_says() -> None:
    overview = _page("docs/features.md").partition("\n## ")[0]
    sizes = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", overview, re.MULTILINE))
    assert {name: len(feature_set(name).names) for name in sizes} == {name: int(size) for name, size in sizes.items()}
    assert set(sizes) == {"factors", "alpha158", "multi_factor"}


def test_the_feature_module_shown_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [shown] = re.findall(r"```python\n(.*?)```", _page("docs/features.md"), re.DOTALL)
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "my_features.py").write_text(shown)
    features = feature_module("my_features").features
    assert features.names == ("calm", "close_in_range")
    try_on_invented_prices(features, trading_calendar())


def test_the_form_shown_is_the_one_that_ships() -> None:
    shipped = _page("stockpicker_dagster/defs/strategies/quickstart/defs.yaml")
    [shown] = re.findall(r"```yaml\n(type: .*?)```", _page("docs/user-guide.md"), re.DOTALL)
    assert shown == "".join(line for line in shipped.splitlines(keepends=True) if not line.startswith("#"))


def test_every_command_is_described_with_what_it_requires() -> None:
    table = _section(_page("docs/user-guide.md"), "### From the command line")
    described = {row.split()[1]: row for row in _first_cells(table) if row.startswith("stockpicker ")}
    assert set(described) == set(main.commands)
    for name, command in main.commands.items():
        wanted = {option for each in command.params if each.required for option in each.opts if option.startswith("--")}
        assert {option for option in wanted if option not in described[name]} == set(), name


def test_every_command_about_data_is_described_with_what_it_requires() -> None:
    table = _section(_page("docs/market-data.md"), "## Decisions about prices")
    described = {row.split()[2]: row for row in _first_cells(table) if row.startswith("stockpicker data ")}
    group = main.commands["data"]
    assert isinstance(group, click.Group)
    assert set(described) == set(group.commands)
    for name, command in group.commands.items():
        wanted = {option for each in command.params if each.required for option in each.opts if option.startswith("--")}
        assert {option for option in wanted if option not in described[name]} == set(), name


def test_every_make_target_on_the_pages_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", _page("Makefile"), re.MULTILINE))
    named = {
        target for page in PAGES for target in re.findall(r"(?:^|`)make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE)
    }
    assert {"demo", "test", "up"} <= named
    assert named - targets == set()


def test_the_rooms_are_those_whose_imports_are_checked() -> None:
    assert _first_cells(_section(_page("docs/architecture.md"), "## Rooms")) == list(ROOMS)


@pytest.mark.parametrize(
    ("asset", "schema"),
    [
        ("prices", PRICES_SCHEMA),
        ("fundamentals", FACTS_SCHEMA),
        ("predictions", PREDICTIONS_SCHEMA),
        ("backtest_metrics", BACKTEST_SCHEMA),
        ("rebalance_orders", PLAN_SCHEMA),
        ("executions", EXECUTIONS_SCHEMA),
    ],
)
def test_the_columns_of_an_asset_are_those_it_stores(asset: str, schema: Mapping[str, pl.DataType]) -> None:
    [columns] = re.findall(rf"^\| `{asset}` \|[^|]*\|(.*)\|$", _page("docs/architecture.md"), re.MULTILINE)
    assert re.findall(r"`([^`]+)`", columns) == list(schema)


def test_the_tables_beside_prices_have_the_columns_named() -> None:
    text = " ".join(_section(_page("docs/architecture.md"), "## Assets").split())
    for name, schema in (("delistings", DELISTINGS_SCHEMA), ("quarantine", QUARANTINE_SCHEMA)):
        [columns] = re.findall(rf"`<source>/{name}` \(([^):]*)", text)
        assert re.findall(r"`([^`]+)`", columns) == list(schema)


def test_the_columns_of_a_price_and_of_a_back_tested_day_are_all_explained() -> None:
    prices = _section(_page("docs/market-data.md"), "## The price contract")
    days = _section(_page("docs/backtest.md"), "## What a day stores")
    for text, schema in ((prices, set(PRICES_SCHEMA)), (days, set(BACKTEST_SCHEMA) - {"date"})):
        firsts = " ".join(line.split("|")[1] for line in text.splitlines() if line.startswith("|"))
        assert set(re.findall(r"`(\w+)`", firsts)) == schema


def test_the_checks_of_prices_are_those_of_the_asset() -> None:
    table = _section(_page("docs/market-data.md"), "### Checks in Dagster")
    blocks = dict(re.findall(r"^\| `(\w+)` \| (yes|no) \|", table, re.MULTILINE))
    specs = checks.specs(dg.AssetKey("prices"), checks.PRICES)
    assert blocks == {spec.name: "yes" if spec.blocking else "no" for spec in specs}


def test_the_verdict_asks_for_what_the_page_says() -> None:
    rule = re.findall(r"^\| (strong|weak) \| ([\d.]+) \| ([\d.]+) \|$", _page("docs/backtest.md"), re.MULTILINE)
    assert {words: (float(ratio), float(p)) for words, ratio, p in rule} == {"strong": STRONG, "weak": WEAK}


def test_the_states_of_a_proposal_are_the_ledgers() -> None:
    table = _section(_page("docs/trading.md"), "## The states of a proposal")
    assert set(_first_cells(table)) == set(get_args(State))


def test_the_limits_are_those_of_a_new_account() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", _section(_page("docs/trading.md"), "## Risk limits"), re.MULTILINE)
    assert {name for name, _ in rows} == set(LimitsForm.model_fields) == {each.name for each in fields(Limits)}
    for name, shown in rows:
        if name not in ("order_notional", "restricted"):
            assert Decimal(shown) == getattr(Limits(), name), name


def test_the_tests_named_on_the_trading_page_exist() -> None:
    named = set(re.findall(r"`([\w/]*test_\w+\.py)`", _page("docs/trading.md")))
    assert len(named) >= 8
    tests = ROOT / "stockpicker_dagster_tests"
    assert [name for name in named if not any((folder / name).is_file() for folder in (tests / "trading", tests))] == []


def test_the_readmes_picture_is_drawn_from_stored_days() -> None:
    days = pl.DataFrame(
        {
            "date": [date(2024, 1, 2), date(2024, 1, 3), date(2024, 1, 4)],
            "net_return": [0.1, 0.0, -0.5],
            "random_net_returns": [[0.0, 0.2], [0.1, 0.0], [0.0, 0.0]],
        }
    )
    figure = _module("draw_readme_picture").draw("mine", days, "simulated market")
    [axes] = figure.axes
    [own] = [line for line in axes.lines if line.get_label() == "strategy"]
    assert own.get_ydata() == pytest.approx([1.1, 1.1, 0.55])
    assert "simulated market" in axes.get_title(loc="left")


def test_the_json_schema_of_dg_has_every_field(project: Project) -> None:
    [block] = [each for each in _blocks() if "inspect-component" in each.script]
    schema = json.loads(project.once(block).stdout)
    parts = _module("reference_tables").forms()
    assert set(schema["properties"]["attributes"]["properties"]) == set(parts["strategy"].model_fields)
