"""The component: what one file turns into, and how a broken file is named by Dagster itself."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from stockpicker_dagster.components.strategy import StockPickerStrategy, strategy_definitions
from stockpicker_dagster.definitions import bind
from stockpicker_dagster.defs.market.assets import market_definitions
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.home import PROJECT_ROOT
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster_tests.components.forms import strategy_form

ASSETS = {
    "scaled_features",
    "datasets",
    "trained_model",
    "predictions",
    "backtest_metrics",
    "rebalance_orders",
    "rebalance_approval",
    "executions",
}


def load_project(forms: dict[str, StrategyForm]) -> dg.Definitions:
    return bind(
        dg.Definitions.merge(
            market_definitions(forms), *(strategy_definitions(name, form) for name, form in forms.items())
        )
    )


def test_two_strategies_share_prices_and_features_and_own_the_rest() -> None:
    forms = {"one": strategy_form(), "two": strategy_form(owner="me@example.com", label={"horizon_days": 10})}
    graph = load_project(forms).resolve_asset_graph()
    shared = {dg.AssetKey(["simulated", "prices"]), dg.AssetKey(["simulated", "factors", "features"])}
    own = {dg.AssetKey([name, asset]) for name in forms for asset in ASSETS}
    assert set(graph.get_all_asset_keys()) == shared | own
    for key in shared | own:
        node = graph.get(key)
        assert node.group_name == key.path[0]
        assert node.kinds
        assert node.description
        assert set(node.owners) == (
            {"team:research", "me@example.com"} if key in shared else {forms[key.path[0]].dagster_owner}
        )
    tables = (shared | own) - {
        dg.AssetKey([name, asset]) for name in forms for asset in ("datasets", "trained_model", "rebalance_approval")
    }
    for key in tables:
        columns = graph.get(key).metadata["dagster/column_schema"].columns
        assert {"date"} <= {column.name for column in columns}
    assert graph.get(dg.AssetKey(["one", "rebalance_approval"])).is_external
    daily = {graph.get(key).partitions_def for key in tables}
    assert len(daily) == 1


def test_the_whole_project_of_two_strategies_is_valid() -> None:
    dg.Definitions.validate_loadable(load_project({"one": strategy_form(), "two": strategy_form()}))


def test_settings_of_one_source_that_differ_are_refused_naming_both_strategies() -> None:
    forms = {"one": strategy_form(), "two": strategy_form(prices={"stocks": 12, "seed": 9})}
    with pytest.raises(
        InvalidInput, match=r"'one' and 'two' give the price source 'simulated' different settings .*seed 9"
    ):
        market_definitions(forms)
    renamed = strategy_form(prices={"stocks": 12, "seed": 9, "name": "other"})
    keys = load_project({"one": strategy_form(), "two": renamed}).resolve_asset_graph().get_all_asset_keys()
    assert {dg.AssetKey(["simulated", "prices"]), dg.AssetKey(["other", "prices"])} <= set(keys)


def test_no_step_of_dagster_can_redirect_lake_database_or_account() -> None:
    schemas = [
        resource.config_schema.as_field().config_type
        for resource in load_project({"one": strategy_form()}).get_repository_def().get_top_level_resources().values()
    ]
    assert all(not getattr(schema, "fields", {}) for schema in schemas)


@pytest.fixture(scope="module")
def broken_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which the quickstart strategy has a mistake."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(
        PROJECT_ROOT / "stockpicker_dagster", root / "stockpicker_dagster", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "dagster.yaml"):
        shutil.copyfile(PROJECT_ROOT / name, root / name)
    path = root / "stockpicker_dagster" / "defs" / "strategies" / "quickstart" / "defs.yaml"
    path.write_text(path.read_text().replace("label: {horizon_days: 5", "label: {horizon_days: 0"))
    return root


def test_dagster_names_file_and_line_of_a_broken_strategy(broken_project: Path) -> None:
    file = "defs/strategies/quickstart/defs.yaml"
    text = (broken_project / "stockpicker_dagster" / file).read_text()
    line = next(number for number, row in enumerate(text.splitlines(), 1) if "horizon_days: 0" in row)
    code = "from stockpicker_dagster.definitions import defs; defs()"
    done = subprocess.run([sys.executable, "-c", code], cwd=broken_project, capture_output=True, text=True)
    assert done.returncode != 0
    assert f"{file}:{line}" in done.stderr
    assert "0 is not allowed: input should be greater than or equal to 1" in done.stderr


def test_dg_lists_the_component_and_shows_the_schema_of_every_field() -> None:
    dg_command = Path(sys.executable).parent / "dg"
    if not dg_command.exists():
        pytest.skip("dg (the extra `dev`): missing")
    done = subprocess.run(
        [dg_command, "utils", "inspect-component", "stockpicker_dagster.components.StockPickerStrategy"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    shown = done.stdout[done.stdout.index("Component schema:") + len("Component schema:") :]
    schema = json.loads(shown)
    assert set(schema["properties"]) == set(StrategyForm.model_fields)
    forms = [schema, *schema["$defs"].values()]
    assert sum(len(form["properties"]) for form in forms) > 50
    for form in forms:
        for field in form["properties"].values():
            # A description that repeats that of the form it refers to is shown there alone.
            shared = schema["$defs"].get(field.get("$ref", "").removeprefix("#/$defs/"), {})
            assert field.get("description") or shared.get("description"), field


def test_the_component_is_the_form() -> None:
    assert StockPickerStrategy.get_model_cls() is StrategyForm
