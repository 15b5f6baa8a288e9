"""Prices once a source and features once a set on it, for all strategies together; and days that lack a symbol."""

import os
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.components import checks
from stockpicker_dagster.components.partitions import trading_days
from stockpicker_dagster.definitions import bind
from stockpicker_dagster.defs.market.assets import market_definitions, symbols_in_use
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.prices import PRICES_SCHEMA
from stockpicker_dagster.research.features.computation import first_needed
from stockpicker_dagster.research.features.declaration import feature_set
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.storage.symbol_sets import incomplete_days
from stockpicker_dagster.strategy_form import StrategyForm, UniverseForm
from stockpicker_dagster_tests.components.forms import strategy_form

CALENDAR = trading_calendar("XNYS")
START = date(2018, 1, 2)
DAYS = CALENDAR.sessions(START, date(2018, 1, 12))
PRICES, FEATURES = dg.AssetKey(["simulated", "prices"]), dg.AssetKey(["simulated", "factors", "features"])


def files_form(symbols: list[str], **prices: Any) -> StrategyForm:
    """A strategy on the file `p.csv` of the state folder."""
    settings = {"source": "files", "path": "p.csv", "basis": "as_traded", "start": START}
    return strategy_form(prices=settings | prices, universe={"symbols": symbols})


def graph_of(forms: dict[str, StrategyForm]) -> AssetGraph:
    return bind(market_definitions(forms)).resolve_asset_graph()


def keys(forms: dict[str, StrategyForm]) -> set[str]:
    return {key.to_user_string() for key in graph_of(forms).get_all_asset_keys()}


def test_what_strategies_share_exists_once() -> None:
    assert keys({"one": strategy_form(), "two": strategy_form(label={"horizon_days": 10})}) == {
        "simulated/prices",
        "simulated/factors/features",
    }
    assert keys({}) == set()


def test_each_source_and_each_set_on_it_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from stockpicker_dagster.research.features import declaration

    monkeypatch.setitem(declaration._SETS, "short", "stockpicker_dagster_tests.system.pipelines")
    forms = {
        "one": strategy_form(),
        "two": strategy_form(features={"set": "short"}),
        "three": strategy_form(prices={"start": START, "stocks": 12, "name": "apart"}, features={"set": "short"}),
    }
    assert keys(forms) == {
        "simulated/prices",
        "simulated/factors/features",
        "simulated/short/features",
        "apart/prices",
        "apart/short/features",
    }


def test_all_days_of_a_source_are_one_partitions_definition_from_its_start() -> None:
    forms = {"one": strategy_form(), "two": files_form(["A", "B"], start=date(2019, 1, 2))}
    graph = graph_of(forms)
    for source, start in (("simulated", START), ("files", date(2019, 1, 2))):
        days = [graph.get(key).partitions_def for key in graph.get_all_asset_keys() if key.path[0] == source]
        assert days == [trading_days(start)] * 2
        assert trading_days(start).get_partition_keys()[0] == str(start)


def test_the_owners_of_all_users_own_what_they_share() -> None:
    forms = {"one": strategy_form(), "two": strategy_form(owner="me@example.com"), "three": strategy_form()}
    graph = graph_of(forms)
    for key, kinds in ((PRICES, {"simulated", "parquet"}), (FEATURES, {"numba", "parquet"})):
        node = graph.get(key)
        assert node.owners == ["me@example.com", "team:research"]
        assert node.group_name == "simulated"
        assert node.kinds == kinds
    columns = {
        key: [each.name for each in graph.get(key).metadata["dagster/column_schema"].columns]
        for key in (PRICES, FEATURES)
    }
    assert columns == {PRICES: list(PRICES_SCHEMA), FEATURES: ["symbol", "date", *feature_set("factors").names]}


def test_broken_prices_and_features_block_what_follows_and_lacking_ones_only_warn() -> None:
    blocking = {
        (spec.asset_key, spec.name): spec.blocking
        for asset in market_definitions({"one": strategy_form()}).assets or []
        if isinstance(asset, dg.AssetsDefinition)
        for spec in asset.check_specs
    }
    assert blocking == {
        (PRICES, "contract_holds"): True,
        (PRICES, "whole_sessions"): True,
        (PRICES, "stored_past_confirmed"): False,
        (PRICES, "members_have_prices"): False,
        (PRICES, "no_empty_sessions"): False,
        (PRICES, "every_symbol_asked_for"): False,
        (FEATURES, "finite_or_null"): True,
        (FEATURES, "coverage_holds"): True,
        (FEATURES, "columns_vary"): True,
    }
    assert {name for _, name in blocking} == {*checks.PRICES, *checks.FEATURES}


@pytest.mark.parametrize(
    "other", [{"stocks": 13}, {"seed": 8}, {"start": date(2018, 1, 3)}, {"stocks": 12, "seed": 8, "name": "simulated"}]
)
def test_a_source_with_two_settings_is_refused_naming_both_strategies_and_the_way_out(other: dict[str, Any]) -> None:
    forms = {"one": strategy_form(), "two": strategy_form(prices={"start": START, "stocks": 12, **other})}
    with pytest.raises(InvalidInput) as refused:
        market_definitions(forms)
    text = str(refused.value)
    assert "'one' and 'two' give the price source 'simulated' different settings" in text
    assert all(f"{name} {value}" in text for name, value in other.items())
    assert "prices: {name: ...}" in text


def test_split_adjusted_prices_have_no_features_of_price_level() -> None:
    form = files_form(["A", "B"], basis="split_adjusted")
    [features] = [
        asset
        for asset in market_definitions({"one": form}).assets or []
        if isinstance(asset, dg.AssetsDefinition) and asset.key.path[-1] == "features"
    ]
    schema = features.metadata_by_key[features.key]["dagster/column_schema"]
    named = {column.name for column in schema.columns} - {"symbol", "date"}
    assert named == set(feature_set("factors").without_price_level().names)
    assert named < set(feature_set("factors").names)


@given(day=st.sampled_from(CALENDAR.sessions(date(2019, 1, 2), date(2025, 12, 31))))
@settings(max_examples=30, deadline=None)
def test_the_days_that_a_days_features_are_mapped_to_reach_the_anchor_of_their_look_back(day: date) -> None:
    """What the computation scans from is among what Dagster shows, and loads, as upstream."""
    [features] = [
        asset
        for asset in market_definitions({"one": strategy_form()}).assets or []
        if isinstance(asset, dg.AssetsDefinition) and asset.key == FEATURES
    ]
    mapping = features.get_partition_mapping(PRICES)
    assert isinstance(mapping, dg.TimeWindowPartitionMapping)
    reached = CALENDAR.sessions(START, day)[mapping.start_offset - 1 :][0]
    assert reached <= first_needed([day], feature_set("factors").lookback, CALENDAR, START)


# Symbols in use


def test_every_symbol_that_is_ever_a_member_for_any_user_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    (tmp_path / "members.csv").write_text(
        "ticker,start_date,end_date\nPAST,2010-01-04,2018-01-05\nEARLIER,2010-01-04,2012-01-04\nNOW,2019-01-02,\n"
    )
    spells = strategy_form(
        prices={"source": "files", "path": "p.csv", "basis": "as_traded", "start": START},
        universe={"file": "members.csv"},
    )
    users = {"one": files_form(["B", "A"]), "two": files_form(["C", "A"]), "three": spells}
    source = spells.prices.build()
    # Whoever left before the source's start is no member on any of its days.
    lake = Deployment().lake
    assert symbols_in_use(users, source, lake) == ["A", "B", "C", "NOW", "PAST"]
    assert symbols_in_use({"one": users["one"]}, source, lake) == ["A", "B"]
    simulated = strategy_form()
    assert symbols_in_use({"one": simulated}, simulated.prices.build(), lake) is None
    # Whoever chooses from everything needs everything, whatever the others name.
    largest = spells.model_copy(update={"universe": UniverseForm(top=5)})
    assert symbols_in_use({**users, "four": largest}, source, lake) is None


class Market:
    """The prices of some strategies in a state folder."""

    def __init__(self, **forms: StrategyForm) -> None:
        self.key = next(iter(forms.values())).prices.key
        self.job = bind(market_definitions(forms)).resolve_implicit_global_asset_job_def()

    @property
    def lake(self) -> Lake:
        return Deployment().lake

    def collect(self, first: date, last: date) -> dict[str, bool]:
        """Collects the days; which checks passed."""
        result = self.job.execute_in_process(
            instance=dg.DagsterInstance.ephemeral(),
            asset_selection=[dg.AssetKey([self.key, "prices"])],
            tags={"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last)},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        return {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}

    def files(self) -> dict[str, bytes]:
        paths = sorted(path for path in self.lake.root.rglob("*") if path.is_file() and path.name != ".lock")
        return {os.path.relpath(path, self.lake.root): path.read_bytes() for path in paths}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    rows = [
        (symbol, day, *[10.0 + number] * 4, 1000.0, 0.0, 1.0)
        for number, day in enumerate(DAYS)
        for symbol in ("A", "B", "C")
    ]
    columns = ["symbol", "date", "open", "high", "low", "close", "volume", "dividend", "split_ratio"]
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(tmp_path / "p.csv")
    return tmp_path


def test_delistings_and_quarantine_are_stored_for_the_same_days_as_prices(home: Path) -> None:
    market = Market(one=strategy_form())
    passed = market.collect(DAYS[0], DAYS[-1])
    assert passed == dict.fromkeys(checks.PRICES, True)
    for table in ("prices", "delistings", "quarantine"):
        assert market.lake.days(f"simulated/{table}") == DAYS
    before = market.files()
    market.collect(DAYS[0], DAYS[-1])
    assert market.files() == before


def test_a_new_symbol_changes_no_other_row_and_marks_stored_days_until_they_are_backfilled(home: Path) -> None:
    first = Market(one=files_form(["A", "B"]))
    assert first.collect(DAYS[0], DAYS[5])["every_symbol_asked_for"]
    stored = first.lake.read("files/prices", DAYS[:6])
    assert set(stored["symbol"]) == {"A", "B"}

    grown = Market(one=files_form(["A", "B"]), two=files_form(["A", "C"]))
    passed = grown.collect(DAYS[6], DAYS[-1])
    assert passed == {**dict.fromkeys(checks.PRICES, True), "every_symbol_asked_for": False}
    assert incomplete_days(grown.lake, "files/prices", ["A", "B", "C"]) == {day: ["C"] for day in DAYS[:6]}
    assert grown.lake.read("files/prices", DAYS[:6]).equals(stored)

    assert grown.collect(DAYS[0], DAYS[5])["every_symbol_asked_for"]
    repaired = grown.lake.read("files/prices", DAYS[:6])
    assert repaired.filter(pl.col("symbol") != "C").equals(stored)
    assert repaired.filter(pl.col("symbol") == "C")["date"].to_list() == DAYS[:6]


def test_a_session_without_prices_is_stored_as_empty_and_warned_of(home: Path) -> None:
    rows = pl.read_csv(home / "p.csv").filter(pl.col("date") != str(DAYS[3]))
    rows.write_csv(home / "p.csv")
    market = Market(one=files_form(["A", "B"]))
    passed = market.collect(DAYS[0], DAYS[-1])
    assert passed == {**dict.fromkeys(checks.PRICES, True), "no_empty_sessions": False}
    assert market.lake.read("files/prices", [DAYS[3]]).is_empty()
    assert market.lake.days("files/prices") == DAYS
