"""From the SEC's answers to scaled features: facts stored by session, factors of them, all through Dagster."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pydantic import ValidationError

from stockpicker_dagster.components import checks
from stockpicker_dagster.defs.market.assets import market_definitions
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.fundamentals.sec_client import CONTACT, DATA_URL, FILES_URL, EdgarUnavailable, SecClient
from stockpicker_dagster.research.features import declaration, factors, fundamental_factors
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster_tests.components.forms import strategy_form
from stockpicker_dagster_tests.market.fundamentals.companies import (
    ASSETS,
    EQUITY,
    INCOME,
    balance,
    flow,
    report,
    shares,
)
from stockpicker_dagster_tests.market.fundamentals.sec_server import Company, SecServer, serving
from stockpicker_dagster_tests.system.pipelines import Pipeline, market_rows

CALENDAR = trading_calendar("XNYS")
START = date(2018, 2, 9)
DAYS = CALENDAR.sessions(START, date(2018, 3, 14))
SYMBOLS = ["AAA", "BBB", "CCC", "DDD"]
SPLIT_DAY = date(2018, 3, 1)
FEATURES = (
    fundamental_factors.asset_growth,
    fundamental_factors.return_on_equity,
    fundamental_factors.book_to_market,
    fundamental_factors.size,
    factors.reversal_1w,
)
"""A few of the set, so that a quarter of prices is enough."""


def company(number: int, symbol: str) -> Company:
    """A filer with two annual reports, the second on a February day of its own, and an amendment of it."""
    cik = 2000 + number
    older = [
        flow(INCOME, "2016-01-01", "2016-12-31", 10.0 * number),
        balance(ASSETS, "2016-12-31", 1000.0),
        balance(EQUITY, "2016-12-31", 400.0),
        shares("2017-02-14", 1000.0),
    ]
    newer = [
        flow(INCOME, "2017-01-01", "2017-12-31", 20.0 * number),
        balance(ASSETS, "2017-12-31", 1000.0 + 100.0 * number),
        balance(EQUITY, "2017-12-31", 500.0),
        shares(f"2018-02-{10 + number}", 1000.0 * number),
    ]
    return Company(
        cik,
        (symbol,),
        (
            report(f"{cik:010d}-17-000001", "10-K", "2017-02-20", "2017-02-20T12:00:00.000Z", *older),
            report(f"{cik:010d}-18-000001", "10-K", f"2018-02-{20 + number}", "", *newer),
            report(
                f"{cik:010d}-18-000002",
                "10-K/A",
                "2018-03-12",
                "2018-03-12T21:00:00.000Z",
                flow(INCOME, "2017-01-01", "2017-12-31", 5.0),
            ),
        ),
    )


COMPANIES = [company(number, symbol) for number, symbol in enumerate(SYMBOLS, start=1) if symbol != "DDD"]


def form(**changes: Any) -> StrategyForm:
    whole: dict[str, Any] = {
        "prices": {"source": "files", "path": "p.csv", "basis": "as_traded", "start": START},
        "universe": {"symbols": SYMBOLS},
        "features": {"set": "few", "fundamentals": "edgar"},
    }
    return strategy_form(**whole | changes)


FACTS, FILERS, FACTORS = "files/fundamentals", "files/filers", "files/few/features"


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[SecServer]:
    """A stand-in for the SEC that the environment names, and the features above as the set `few`."""
    with serving(SecServer(list(COMPANIES))) as running, pytest.MonkeyPatch.context() as patch:
        patch.setitem(declaration._SETS, "few", __name__)
        patch.setenv(CONTACT, "Jane Doe jane@example.com")
        patch.setenv(DATA_URL, running.url)
        patch.setenv(FILES_URL, running.url)
        yield running


@pytest.fixture
def sec(server: SecServer) -> Iterator[SecServer]:
    """The stand-in, to be changed by one test."""
    yield server
    server.companies, server.instead = list(COMPANIES), lambda path, times: None


@pytest.fixture(scope="module")
def whole(server: SecServer, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Everything collected in one range, to be read alone."""
    pipeline = stored_at(tmp_path_factory.mktemp("fundamentals") / "whole")
    collect(pipeline, DAYS[0], DAYS[-1])
    return pipeline


def stored_at(root: Path) -> Pipeline:
    """A strategy on four stocks, one of which splits two for one."""
    root.mkdir()
    rows = market_rows(SYMBOLS, START, DAYS[-1])
    after = (pl.col("symbol") == "AAA") & (pl.col("date") >= SPLIT_DAY)
    prices = [
        pl.when(after).then(pl.col(name) / 2).otherwise(pl.col(name)).alias(name)
        for name in ("open", "high", "low", "close")
    ]
    on = (pl.col("symbol") == "AAA") & (pl.col("date") == SPLIT_DAY)
    rows.with_columns(*prices, split_ratio=pl.when(on).then(2.0).otherwise("split_ratio")).write_csv(root / "p.csv")
    return Pipeline(root, {"own": form()})


def collect(pipeline: Pipeline, first: date, last: date, *assets: str) -> dg.ExecuteInProcessResult:
    return pipeline.materialize(assets or ("files/prices", FACTS, FACTORS, "own/scaled_features"), first, last)


def factor(pipeline: Pipeline, name: str, symbol: str, day: date) -> float | None:
    table = pipeline.lake.read(FACTORS, [day])
    return table.filter(pl.col("symbol") == symbol)[name].item()


def test_a_fact_reaches_the_factors_at_the_close_after_its_filing_and_amendments_never_do(whole: Pipeline) -> None:
    lake = whole.lake
    facts = lake.read(FACTS, DAYS)
    assert facts.height == 3 * (4 + 4 + 1)
    assert facts.filter(pl.col("date") == START)["known_at"].unique().to_list() == [date(2017, 2, 21)]
    for number, symbol in enumerate(SYMBOLS[:3], start=1):
        filed = date(2018, 2, 20 + number)
        assert factor(whole, "return_on_equity", symbol, filed) == pytest.approx(10 * number / 400)
        known = CALENDAR.next_session(filed)
        for day in (known, date(2018, 3, 13), DAYS[-1]):
            assert factor(whole, "return_on_equity", symbol, day) == pytest.approx(20 * number / 500)
            assert factor(whole, "asset_growth", symbol, day) == pytest.approx(number / 10)
    assert factor(whole, "asset_growth", "AAA", START) is None
    assert whole.lake.read(FACTORS, DAYS).filter(pl.col("symbol") == "DDD")["size"].null_count() == len(DAYS)
    assert dict(lake.read(FILERS, [START]).select("symbol", "cik").iter_rows())["DDD"] is None

    # 1,000 shares as counted before the split of the first of March, twice as many at half the price after it.
    before, after = (factor(whole, "book_to_market", "AAA", day) for day in (date(2018, 2, 28), SPLIT_DAY))
    closes = [
        lake.read("files/prices", [day]).filter(pl.col("symbol") == "AAA")["close"].item()
        for day in (date(2018, 2, 28), SPLIT_DAY)
    ]
    assert before == pytest.approx(500 / (1000 * closes[0]))
    assert after == pytest.approx(500 / (2000 * closes[1]))

    scaled = lake.read("own/scaled_features", DAYS)
    assert scaled.height == len(SYMBOLS) * len(DAYS)
    assert scaled.select(pl.all().null_count()).sum_horizontal().item() == 0


def test_days_one_by_one_leave_the_bytes_of_a_range_and_nothing_filed_later_matters(
    whole: Pipeline, tmp_path: Path, sec: SecServer
) -> None:
    daily = stored_at(tmp_path / "daily")
    cut, tables = date(2018, 2, 22), ("files/prices", FACTS, FACTORS)
    sec.companies = [each.through(cut) for each in COMPANIES]
    collect(daily, DAYS[0], cut, *tables)
    sec.companies = list(COMPANIES)
    through = CALENDAR.next_session(cut)
    collect(daily, through, through, *tables)
    for table in (*tables, FILERS):
        stored = {
            name: content for name, content in files(whole, table).items() if name.split("/")[1] <= f"{through}.parquet"
        }
        assert files(daily, table) == stored, table


def files(pipeline: Pipeline, table: str) -> dict[str, bytes]:
    root = pipeline.root / "lake" / table
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.parquet"))}


def test_collecting_again_keeps_what_was_stored(whole: Pipeline, tmp_path: Path, sec: SecServer) -> None:
    again = whole.copied_to(tmp_path / "again")
    changed = zip(COMPANIES[0].reports, company(7, "AAA").reports, strict=True)
    reports = tuple(replace(old, figures=new.figures) for old, new in changed)
    sec.companies = [replace(COMPANIES[0], reports=reports), *COMPANIES[1:]]
    collect(again, date(2018, 2, 20), date(2018, 2, 23), FACTS)
    assert files(again, FACTS) == files(whole, FACTS)


def test_a_company_that_changed_its_ticker_keeps_its_facts_under_its_id(
    whole: Pipeline, tmp_path: Path, sec: SecServer
) -> None:
    """The SEC knows companies by their tickers of today alone, on every day."""
    changed = date(2018, 2, 15)
    root = stored_at(tmp_path / "renamed").root
    later = (pl.col("symbol") == "BBB") & (pl.col("date").cast(pl.Date) >= changed)
    rows = pl.read_csv(root / "p.csv", try_parse_dates=True)
    rows.with_columns(symbol=pl.when(later).then(pl.lit("BBX")).otherwise("symbol")).write_csv(root / "p.csv")
    (root / "c.csv").write_text(f"old,new,date\nBBB,BBX,{changed}\n")
    prices = form().prices.model_dump(exclude_unset=True) | {"symbol_changes": "c.csv"}
    renamed = Pipeline(root, {"own": form(prices=prices)})
    sec.companies = [replace(each, tickers=("BBX",)) if each.tickers == ("BBB",) else each for each in COMPANIES]
    through = date(2018, 2, 23)
    tables = ("files/prices", FACTS, FACTORS)
    collect(renamed, DAYS[0], through, *tables)
    days = [day for day in DAYS if day <= through]
    for table in (FACTS, FILERS, FACTORS):
        assert_frame_equal(renamed.lake.read(table, days), whole.lake.read(table, days))


def test_checks_name_symbols_without_a_company_and_block_nothing_for_it(tmp_path: Path) -> None:
    pipeline = stored_at(tmp_path / "few")
    result = collect(pipeline, DAYS[0], DAYS[0], FACTS)
    found = {each.check_name: each for each in result.get_asset_check_evaluations()}
    assert set(found) == set(checks.FUNDAMENTALS)
    assert found["nothing_known_early"].passed
    assert not found["every_company_answered"].passed
    assert found["every_company_answered"].metadata["without_a_company"].value == "DDD"
    early = pipeline.lake.read(FACTS, DAYS[:1]).with_columns(known_at=pl.col("filed").dt.offset_by("-1d"))
    assert not checks.nothing_known_early(early).passed


def test_without_a_network_or_a_contact_nothing_is_stored_and_the_reason_is_one_sentence(
    tmp_path: Path, sec: SecServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = stored_at(tmp_path / "none")
    impatient = SecClient("jane@example.com", sec.url, sec.url, attempts=1)
    sec.instead = lambda path, times: (503, b"", {})
    with monkeypatch.context() as patch:
        patch.setattr(SecClient, "from_environment", lambda: impatient)
        with pytest.raises(EdgarUnavailable, match="status 503"):
            collect(pipeline, DAYS[0], DAYS[0], FACTS)
    monkeypatch.delenv(CONTACT)
    with pytest.raises(InvalidInput, match=f"set {CONTACT} to"):
        collect(pipeline, DAYS[0], DAYS[0], FACTS)
    assert pipeline.lake.days(FACTS) == []


# What there is of it


def assets_of(**forms: StrategyForm) -> dict[str, dg.AssetsDefinition]:
    return {
        asset.key.to_user_string(): asset
        for asset in market_definitions(forms).assets or []
        if isinstance(asset, dg.AssetsDefinition)
    }


def test_sets_made_of_prices_alone_pay_nothing() -> None:
    alone = form(features={"set": "factors"})
    assert FACTS not in assets_of(one=alone)
    assert alone.shared_tables == ("files/prices", "files/factors/features")
    both = assets_of(one=alone, two=form())
    assert set(both) == {"files/prices", FACTS, FACTORS, "files/factors/features"}
    facts, prices = (dg.AssetKey(name.split("/")) for name in (FACTS, "files/prices"))
    assert both[FACTORS].asset_deps[both[FACTORS].key] == {facts, prices}
    assert both["files/factors/features"].asset_deps[both["files/factors/features"].key] == {prices}
    assert form().shared_tables == ("files/prices", FACTS, FACTORS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features": {"set": "multi_factor"}}, "add `fundamentals: edgar`"),
        ({"features": {"set": "factors", "fundamentals": "edgar"}}, "made of prices alone"),
        ({"prices": {"start": START, "stocks": 12}}, "are invented; use another source"),
        ({"universe": {"top": 3, "by": "dollar_volume"}}, "say among which stocks with `of`"),
        (
            {"features": {"set": "multi_factor", "fundamentals": "edgar", "names": ["beauty"]}},
            "'beauty' is not in the set",
        ),
    ],
)
def test_a_form_that_cannot_work_is_refused_in_a_sentence(changes: dict[str, Any], said: str) -> None:
    if "prices" in changes:
        changes = changes | {"universe": {"name": "simulated"}}
    with pytest.raises(ValidationError, match=said):
        form(**changes)
