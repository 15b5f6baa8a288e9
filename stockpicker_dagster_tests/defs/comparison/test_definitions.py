"""The comparison asset: there where strategies share a universe, made from stored days alone."""

from pathlib import Path

import dagster as dg
import pytest

from stockpicker_dagster.definitions import bind
from stockpicker_dagster.defs.comparison.definitions import comparison_definitions
from stockpicker_dagster.evaluation.trials import logged_trials
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster_tests.evaluation.stored_strategies import SERVED, book, served_form, store

FORMS = {
    "one": served_form(),
    "two": served_form(label={"horizon_days": 4}),
    "alone": served_form(universe={"symbols": ["S0", "S1"]}),
}


def test_only_strategies_that_share_a_universe_are_compared() -> None:
    graph = bind(comparison_definitions(FORMS)).resolve_asset_graph()
    [key] = graph.materializable_asset_keys
    assert key.to_user_string() == "comparison/simulated_on_simulated"
    assert {parent.to_user_string() for parent in graph.get(key).parent_keys} == {
        "one/backtest_metrics",
        "two/backtest_metrics",
    }
    assert not comparison_definitions({"one": FORMS["one"], "alone": FORMS["alone"]}).assets


def test_it_shows_both_and_counts_both_as_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    deployment = Deployment()
    for seed, name in enumerate(("one", "two")):
        store(deployment, name, FORMS[name], book(SERVED, 0.001, seed))
    job = bind(comparison_definitions(FORMS)).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=dg.DagsterInstance.ephemeral())
    [event] = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert metadata["span"].value == f"{SERVED[0]} to {SERVED[-1]}"
    assert "| net Sharpe ratio |" in str(metadata["figures"].value)
    assert metadata["caveat"].value == "simulated market"
    assert "Sharpe ratio" in str(metadata["verdict_of_one"].value)
    assert len(logged_trials(deployment.database)) == 2
    assert [path for path in deployment.lake.root.iterdir() if path.name == "comparison"] == []
