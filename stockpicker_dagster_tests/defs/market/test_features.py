"""The asset of features: what it shows in Dagster, and that a range in one run leaves the files of its days."""

from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from stockpicker_dagster.components import checks
from stockpicker_dagster.components.computing import Computing
from stockpicker_dagster.defs.market.assets import market_definitions
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.io_manager import LakeIOManager
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster_tests.components.forms import strategy_form

START = date(2018, 12, 3)
DAYS = trading_calendar("XNYS").sessions(START, date(2019, 1, 10))
FORM = strategy_form(features={"set": "alpha158"}, prices={"start": START, "stocks": 24})
TABLE = "simulated/alpha158/features"


def materialize(form: StrategyForm, asset: str, first: date, last: date) -> dg.ExecuteInProcessResult:
    definitions = dg.Definitions.merge(
        market_definitions({"one": form}),
        dg.Definitions(resources={"io_manager": LakeIOManager(), "deployment": Deployment(), "computing": Computing()}),
    )
    return definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        asset_selection=[dg.AssetKey(asset.split("/"))],
        tags={"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last)},
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    assert materialize(FORM, "simulated/prices", DAYS[0], DAYS[-1]).success
    return tmp_path


def stored(home: Path) -> dict[str, bytes]:
    folder = home / "lake" / TABLE
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}


def test_a_range_over_a_new_year_leaves_the_files_of_its_days(home: Path) -> None:
    assert materialize(FORM, TABLE, DAYS[0], DAYS[-1]).success
    in_one_run = stored(home)
    assert {name.split("/")[0] for name in in_one_run} == {"year=2018", "year=2019"}
    middle = DAYS[len(DAYS) // 2]
    assert materialize(FORM, TABLE, middle, middle).success
    assert materialize(FORM, TABLE, DAYS[-2], DAYS[-1]).success
    assert stored(home) == in_one_run


def test_a_run_shows_coverage_columns_and_distributions_on_its_last_day_and_counts_on_each(home: Path) -> None:
    result = materialize(FORM, TABLE, DAYS[-4], DAYS[-1])
    events = {
        each.partition: each.metadata for each in result.asset_materializations_for_node(TABLE.replace("/", "__"))
    }
    assert set(events) == {str(day) for day in DAYS[-4:]}
    last = events[str(DAYS[-1])]
    assert last["dagster/row_count"].value == 4 * 24
    assert last["sessions"].value == 4
    assert last["features"].value == 158
    assert all(each["dagster/partition_row_count"].value == 24 for each in events.values())
    for shown in ("coverage", "columns_last_day", "distributions_last_day"):
        assert shown in last
        assert shown not in events[str(DAYS[-2])]
    table = str(last["columns_last_day"].value)
    assert table.count("\n") == 1 + 158
    assert "| KMID | 0.0% |" in table


def test_its_checks_are_evaluated_with_what_was_stored_before(home: Path) -> None:
    materialize(FORM, TABLE, DAYS[0], DAYS[-2])
    result = materialize(FORM, TABLE, DAYS[-1], DAYS[-1])
    found = {each.check_name: each.passed for each in result.get_asset_check_evaluations()}
    assert found == dict.fromkeys(checks.FEATURES, True)
