"""The assets of one strategy: what each depends on and declares, and how each behaves at the edges of its history."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from stockpicker_dagster.components import checks
from stockpicker_dagster.components.partitions import trading_days
from stockpicker_dagster.components.strategy_assets import strategy_assets
from stockpicker_dagster.definitions import bind
from stockpicker_dagster.defs.market.assets import market_definitions
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.research.backtest.days import BACKTEST_SCHEMA
from stockpicker_dagster.research.plan import PLAN_SCHEMA
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import Bundle, MissingBundle, MissingDays
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster.training.scoring import PREDICTIONS_SCHEMA
from stockpicker_dagster_tests.components.forms import FIXED, strategy_form

CALENDAR = trading_calendar("XNYS")
WALKING = strategy_form()
FIXED_FORM = strategy_form(prices={"start": date(2020, 1, 2), "stocks": 12}, periods=FIXED)
DAILY = ("scaled_features", "predictions", "backtest_metrics", "rebalance_orders", "rebalance_approval", "executions")
CHECKS = {
    ("scaled_features", "complete_and_finite"),
    ("scaled_features", "coverage_holds"),
    ("scaled_features", "columns_vary"),
    ("scaled_features", "past_members_confirmed"),
    ("predictions", "every_member_ranked"),
    ("backtest_metrics", "equity_adds_up"),
    ("rebalance_orders", "legs_balance"),
}


def key(name: str) -> dg.AssetKey:
    return dg.AssetKey(name.split("/"))


def definitions(form: StrategyForm) -> dg.Definitions:
    return bind(
        dg.Definitions.merge(dg.Definitions(assets=strategy_assets("mine", form)), market_definitions({"mine": form}))
    )


@pytest.fixture(scope="module")
def graph() -> AssetGraph:
    return definitions(WALKING).resolve_asset_graph()


def test_each_asset_depends_on_exactly_what_it_is_made_of(graph: AssetGraph) -> None:
    expected = {
        "scaled_features": {"simulated/factors/features"},
        "datasets": {"mine/scaled_features", "simulated/prices"},
        "trained_model": {"mine/datasets"},
        "predictions": {"mine/scaled_features", "mine/trained_model"},
        "backtest_metrics": {"mine/predictions", "simulated/prices"},
        "rebalance_orders": {"mine/predictions", "simulated/prices", "mine/backtest_metrics"},
        "rebalance_approval": {"mine/rebalance_orders"},
        "executions": {"mine/rebalance_approval"},
    }
    own = {each.path[1]: each for each in graph.get_all_asset_keys() if each.path[0] == "mine"}
    assert {
        name: {parent.to_user_string() for parent in graph.get(each).parent_keys} for name, each in own.items()
    } == expected


def test_days_and_models_are_partitioned_as_their_periods_say(graph: AssetGraph) -> None:
    for name in DAILY:
        assert graph.get(key(f"mine/{name}")).partitions_def == trading_days(date(2018, 1, 2))
    models = {graph.get(key(f"mine/{name}")).partitions_def for name in ("datasets", "trained_model")}
    assert len(models) == 1
    [periods] = models
    assert isinstance(periods, dg.TimeWindowPartitionsDefinition)
    assert periods.get_partition_keys()[0] == str(WALKING.first_served)
    fixed = definitions(FIXED_FORM).resolve_asset_graph()
    assert [fixed.get(key(f"mine/{name}")).partitions_def for name in ("datasets", "trained_model")] == [None, None]
    assert fixed.get(key("mine/predictions")).partitions_def == trading_days(date(2020, 1, 2))


def test_a_range_of_any_asset_is_one_run() -> None:
    for form in (WALKING, FIXED_FORM):
        for asset in strategy_assets("mine", form):
            if isinstance(asset, dg.AssetsDefinition) and asset.partitions_def is not None:
                assert asset.backfill_policy == dg.BackfillPolicy.single_run(), asset.key


def test_checks_are_declared_on_the_tables_and_block_what_follows(graph: AssetGraph) -> None:
    declared = [each for each in graph.asset_check_keys if each.asset_key.path[0] == "mine"]
    assert {(each.asset_key.path[1], each.name) for each in declared} == CHECKS
    for asset in strategy_assets("mine", WALKING):
        if isinstance(asset, dg.AssetsDefinition):
            # Whoever corrects a list may go on with the days that hold the earlier one.
            warn = {"past_members_confirmed"}
            assert {spec.name for spec in asset.check_specs if not spec.blocking} <= warn


def test_each_asset_names_its_owner_kind_and_columns(graph: AssetGraph) -> None:
    columns = {
        "scaled_features": ["symbol", "date", *WALKING.feature_set().names],
        "predictions": list(PREDICTIONS_SCHEMA),
        "backtest_metrics": list(BACKTEST_SCHEMA),
        "rebalance_orders": list(PLAN_SCHEMA),
    }
    for name, expected in columns.items():
        node = graph.get(key(f"mine/{name}"))
        assert [column.name for column in node.metadata["dagster/column_schema"].columns] == expected
        assert (node.owners, node.group_name) == (["team:research"], "mine")
        assert "parquet" in node.kinds
    assert graph.get(key("mine/trained_model")).kinds == {"linear"}
    assert graph.get(key("mine/rebalance_approval")).kinds == {"person"}


def test_only_the_features_chosen_are_scaled() -> None:
    chosen = ["reversal_1w", "illiquidity"]
    graph = definitions(strategy_form(features={"set": "factors", "names": chosen})).resolve_asset_graph()
    schema = graph.get(key("mine/scaled_features")).metadata["dagster/column_schema"]
    assert [column.name for column in schema.columns] == ["symbol", "date", *chosen]
    shared = graph.get(key("simulated/factors/features")).metadata["dagster/column_schema"]
    assert len(shared.columns) > 4


# What the assets do at the edges


class Strategy:
    """A strategy with fixed or walking periods and a state folder."""

    def __init__(self, form: StrategyForm) -> None:
        self.form = form
        self.lake = Deployment().lake
        self.job = definitions(form).resolve_implicit_global_asset_job_def()
        self.instance = dg.DagsterInstance.ephemeral()

    def store(self, table: str, days: Sequence[date], frame: pl.DataFrame) -> None:
        self.lake.write_days(table, frame, days, lambda year: CALENDAR.sessions(date(year, 1, 1), date(year, 12, 31)))

    def store_scaled(self, days: Sequence[date]) -> None:
        """Two stocks whose features are all zero."""
        names = self.form.feature_set().names
        frame = pl.DataFrame({"symbol": ["A", "B"] * len(days), "date": [day for day in days for _ in range(2)]})
        self.store(
            "mine/scaled_features", days, frame.with_columns(pl.lit(0.0, pl.Float32).alias(name) for name in names)
        )

    def materialize(self, asset: str, days: Sequence[date]) -> dg.ExecuteInProcessResult:
        return self.job.execute_in_process(
            instance=self.instance,
            asset_selection=[key(asset)],
            tags={
                "dagster/asset_partition_range_start": str(days[0]),
                "dagster/asset_partition_range_end": str(days[-1]),
            },
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    return tmp_path


BEFORE = CALENDAR.sessions(date(2021, 3, 25), date(2021, 3, 31))
"""The last sessions before the first model, which serves the quarter of April 2021."""


def test_days_before_the_first_model_give_empty_frames_of_the_right_columns(home: Path) -> None:
    strategy = Strategy(WALKING)
    strategy.store_scaled(BEFORE)
    strategy.materialize("mine/predictions", BEFORE)
    strategy.materialize("mine/backtest_metrics", BEFORE)
    for table, schema in (("predictions", PREDICTIONS_SCHEMA), ("backtest_metrics", BACKTEST_SCHEMA)):
        stored = strategy.lake.read(f"mine/{table}", BEFORE)
        assert stored.is_empty()
        assert dict(stored.schema) == schema
        assert strategy.lake.days(f"mine/{table}") == BEFORE


def test_a_model_that_is_missing_fails_and_an_older_one_is_never_taken_instead(home: Path) -> None:
    strategy = Strategy(WALKING)
    july = CALENDAR.sessions(date(2021, 7, 1), date(2021, 7, 6))
    strategy.store_scaled(july)
    strategy.lake.write_bundle("mine/trained_model", "2021-04-01", Bundle({"model.json": b"{}"}))
    with pytest.raises(MissingBundle, match="mine/trained_model was never materialized for '2021-07-01'"):
        strategy.materialize("mine/predictions", july)
    assert strategy.lake.days("mine/predictions") == []


def test_a_dataset_names_the_days_that_it_lacks(home: Path) -> None:
    strategy = Strategy(WALKING)
    first = WALKING.split("2021-04-01").train[0]
    strategy.store_scaled([first])
    with pytest.raises(MissingDays, match=r"mine/scaled_features was never materialized for \d+ days"):
        strategy.materialize("mine/datasets", [date(2021, 4, 1)])


def test_a_list_whose_past_was_edited_is_named_with_the_days_that_it_no_longer_agrees_with(home: Path) -> None:
    strategy = Strategy(strategy_form(universe={"file": "members.csv"}))
    names = strategy.form.feature_set().names
    rows = pl.DataFrame({"symbol": ["S000", "S001"] * len(BEFORE), "date": [day for day in BEFORE for _ in range(2)]})
    rows = rows.with_columns(pl.Series(name, range(rows.height), dtype=pl.Float32) for name in names)
    strategy.store("simulated/factors/features", BEFORE, rows)

    def changed_days(members: str, day: date) -> tuple[bool, str]:
        (home / "members.csv").write_text("ticker,start_date,end_date\n" + members)
        result = strategy.job.execute_in_process(
            instance=strategy.instance,
            asset_selection=[key("mine/scaled_features")],
            partition_key=str(day),
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        [found] = [each for each in result.get_asset_check_evaluations() if each.check_name == "past_members_confirmed"]
        return found.passed, str(found.metadata["what_to_do"].value)

    first, second, third = BEFORE[:3]
    both = "S000,2020-01-02,\nS001,2020-01-02,"
    assert changed_days(both, first) == (True, "nothing")
    assert changed_days(f"{both}{third}", second) == (True, "nothing")
    passed, what = changed_days(f"{both}{second}", third)
    assert not passed
    assert f"on {second};" in what
    assert f"--from {second}" in what
    # Making the day again settles it.
    assert changed_days(f"{both}{second}", second) == (True, "nothing")


def test_a_broken_table_fails_its_blocking_check_before_anything_follows(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = Strategy(WALKING)
    strategy.store_scaled(BEFORE)
    monkeypatch.setattr(
        checks,
        "every_member_ranked",
        lambda table: dg.AssetCheckResult(check_name="every_member_ranked", passed=False),
    )
    result = strategy.job.execute_in_process(
        instance=strategy.instance,
        asset_selection=[key("mine/predictions"), key("mine/backtest_metrics")],
        partition_key=str(BEFORE[0]),
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    assert not result.success
    assert [evaluation.passed for evaluation in result.get_asset_check_evaluations()] == [False]
    assert strategy.lake.days("mine/backtest_metrics") == []
