"""The assets of named universes: refreshed weekly, never failing a run, with every change shown."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from stockpicker_dagster.definitions import bind
from stockpicker_dagster.defs.market.universes import as_table, universe_definitions
from stockpicker_dagster.market.universes.snapshots import Changes, stored_snapshots
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster_tests.components.forms import strategy_form
from stockpicker_dagster_tests.market.universes.list_server import ListServer, list_server

FILES = {"source": "files", "path": "p.csv", "basis": "as_traded"}
FORMS = {
    "one": strategy_form(prices=FILES, universe={"name": "sp100"}),
    "two": strategy_form(prices=FILES, universe={"top": 50, "of": "sp500"}),
    "three": strategy_form(prices=FILES, universe={"name": "russell3000", "file": "IWV_holdings.csv"}),
    "four": strategy_form(),
}
HUNDRED = {f"S{n:03}": ("X", "Y")[n % 2] for n in range(100)}


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ListServer]:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    with list_server() as server:
        monkeypatch.setenv("STOCKPICKER_UNIVERSE_URL_SP100", server.url)
        yield server


def refreshed() -> tuple[dict[str, dg.MetadataValue], dg.AssetCheckEvaluation]:
    """What the refresh of the S&P 100 says of itself, and its check."""
    job = bind(universe_definitions({"one": FORMS["one"]})).resolve_implicit_global_asset_job_def()
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    result = job.execute_in_process(instance=dg.DagsterInstance.ephemeral(), run_config=quiet)
    assert result.success
    [materialized] = result.get_asset_materialization_events()
    [check] = result.get_asset_check_evaluations()
    return dict(materialized.materialization.metadata), check


def test_only_listed_universes_in_use_have_an_asset_and_one_weekly_schedule() -> None:
    definitions = universe_definitions(FORMS)
    keys = {key.to_user_string() for key in bind(definitions).resolve_asset_graph().get_all_asset_keys()}
    assert keys == {"universes/sp100/members", "universes/sp500/members"}
    [schedule] = definitions.schedules or []
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert (schedule.cron_schedule, schedule.default_status) == ("0 6 * * 6", dg.DefaultScheduleStatus.RUNNING)
    assert not list(universe_definitions({"four": FORMS["four"]}).assets or [])


def test_a_new_list_shows_what_it_changes(publisher: ListServer) -> None:
    publisher.publish(HUNDRED)
    metadata, check = refreshed()
    assert check.passed
    assert (metadata["members"].value, metadata["joined"].value) == (100, 0)
    publisher.publish(
        {symbol: sector for symbol, sector in HUNDRED.items() if symbol != "S000"} | {"NEW": "X", "S001": "X"}
    )
    metadata, check = refreshed()
    assert check.passed
    assert [metadata[name].value for name in ("joined", "left", "sector_changed")] == [1, 1, 1]
    for line in ("| NEW | joined |", "| S000 | left |", "| S001 | sector Y → X |"):
        assert line in str(metadata["changes"].value)
    assert str(metadata["history"].value).startswith("point in time since ")
    assert "not point in time" in str(metadata["caveat"].value)


@pytest.mark.parametrize(("status", "sectors"), [(503, {}), (200, {"AAA": "X", "BBB": "Y"})])
def test_a_failed_refresh_warns_and_stops_nothing(publisher: ListServer, status: int, sectors: dict[str, str]) -> None:
    publisher.publish(HUNDRED)
    refreshed()
    publisher.publish(sectors)
    publisher.status = status
    metadata, check = refreshed()
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert metadata["outcome"].value == check.metadata["outcome"].value
    assert len(stored_snapshots(Deployment().lake, "sp100")) == 1


def test_no_change_is_said_in_a_word() -> None:
    assert as_table(Changes((), (), ())) == "none"
