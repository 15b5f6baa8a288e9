"""The universe's part of the form: every spelling of it gives the universe that it says."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.prices import PRICES_SCHEMA
from stockpicker_dagster.market.sources import PriceSource
from stockpicker_dagster.market.universes import Universe
from stockpicker_dagster.market.universes.snapshots import stored_snapshots
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.strategy_form import PricesForm, StrategyForm, UniverseForm
from stockpicker_dagster_tests.components.forms import strategy_form

CALENDAR = trading_calendar("XNYS")
START, END = date(2023, 1, 3), date(2023, 5, 31)
SESSIONS = CALENDAR.sessions(START, END)
SPAN = (SESSIONS[0], SESSIONS[-1])
FILES = {"source": "files", "path": "p.csv", "basis": "as_traded", "start": START}
NOW = datetime(2024, 1, 5, 12, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def lake(home: Path) -> Lake:
    """With the prices of five stocks, the first of which trades most and the last is cheapest."""
    lake = Lake(home / "lake")
    rows = [(symbol, day, 50.0 - 10.0 * n, 100.0 - n) for day in SESSIONS for n, symbol in enumerate("ABCDE")]
    prices = pl.DataFrame(rows, schema=["symbol", "date", "close", "volume"], orient="row").with_columns(
        pl.lit(None, kind).alias(name) for name, kind in PRICES_SCHEMA.items()
        if name not in ("symbol", "date", "close", "volume")
    )  # fmt: skip
    year = CALENDAR.sessions(date(2023, 1, 1), date(2023, 12, 31))
    lake.write_days("files/prices", prices.select(list(PRICES_SCHEMA)), SESSIONS, lambda _: year)
    return lake


def source() -> PriceSource:
    return PricesForm.model_validate(FILES).build()


def built(lake: Lake, **form: Any) -> Universe:
    return UniverseForm.model_validate(form).build(source(), SPAN, lake, CALENDAR)


def test_top_is_chosen_from_everything_or_from_a_universe(home: Path, lake: Lake) -> None:
    (home / "members.csv").write_text("symbol,sector\nB,X\nC,X\nE,Y\n")
    assert built(lake, top=2).members(END) == ["A", "B"]
    assert built(lake, top=2, by="dollar_volume", of="members.csv", rebalance="monthly").members(END) == ["B", "C"]
    assert built(lake, top=2, of="members.csv", sector="Y").members(END) == ["E"]
    assert not built(lake, top=2, of="members.csv").point_in_time


def test_what_narrows_a_day_is_decided_by_that_days_prices(lake: Lake) -> None:
    form = UniverseForm(symbols=["A", "D", "E"], min_price=15.0)
    members = form.build(source(), SPAN, lake, CALENDAR).membership([END])
    assert form.narrowed(members, source(), lake, CALENDAR)["symbol"].to_list() == ["A", "D"]


def test_the_symbols_whose_prices_are_needed_are_all_that_can_be_members(home: Path, lake: Lake) -> None:
    (home / "members.csv").write_text("symbol,start_date,end_date\nOUT,2020-01-02,2022-01-03\nC,2023-02-01,\n")

    def needed(**form: Any) -> list[str] | None:
        return UniverseForm.model_validate(form).symbols_ever(source(), CALENDAR.last_day, lake)

    assert needed(symbols=["A", "B"], min_price=5.0) == ["A", "B"]
    assert needed(file="members.csv") == needed(top=2, of="members.csv") == ["C"]
    assert needed(top=2) is None


def test_a_listed_universe_keeps_its_first_list_unless_a_file_stands_for_it(home: Path, lake: Lake) -> None:
    (home / "IWV.csv").write_text(
        "Ticker,Name,Sector,Exchange\nBRKB,BERKSHIRE CLASS B,Financials,NYSE\nC,C,Financials,NYSE\n"
    )
    for form in (
        UniverseForm(name="sp100"),
        UniverseForm(top=5, of="sp500"),
        UniverseForm(name="russell3000", file="IWV.csv"),
    ):
        form.keep_list(lake, NOW)
    assert len(stored_snapshots(lake, "sp100")) == len(stored_snapshots(lake, "sp500")) == 1
    assert stored_snapshots(lake, "russell3000") == []
    assert "BRK-B" in built(lake, name="sp100").members(END)
    assert built(lake, name="sp500", sector="energy").name == "sp500: Energy"
    russell = built(lake, name="russell3000", file="IWV.csv")
    assert (russell.name, russell.members(END), russell.point_in_time) == ("russell3000", ["BRK-B", "C"], False)
    with pytest.raises(InvalidInput, match="no list of the Russell 3000 comes with the software"):
        UniverseForm(name="russell3000").keep_list(lake, NOW)


@pytest.mark.parametrize(
    ("prices", "universe", "sentence"),
    [
        ({"basis": "split_adjusted"}, {"symbols": ["A", "B"], "min_price": 5}, "min_price 5.0 needs prices as traded"),
        (
            {"source": "yahoo", "path": None, "basis": None},
            {"top": 5},
            "cannot list all their symbols; name one with of",
        ),
    ],
)
def test_what_the_prices_cannot_decide_is_refused(
    prices: dict[str, Any], universe: dict[str, Any], sentence: str
) -> None:
    given = {name: value for name, value in (FILES | prices).items() if value is not None}
    with pytest.raises(ValidationError, match=sentence):
        strategy_form(prices=given, universe=universe)


def test_what_prices_can_decide_is_allowed() -> None:
    adjusted = FILES | {"basis": "split_adjusted"}
    yahoo = {"source": "yahoo", "start": START}
    for prices, universe in (
        (adjusted, {"symbols": ["A", "B"], "min_dollar_volume": 1e6}),
        (adjusted, {"top": 5}),
        (yahoo, {"top": 5, "of": "sp500"}),
        (yahoo, {"name": "sp100", "min_price": 5}),
    ):
        assert strategy_form(prices=prices, universe=universe).universe.needs_prices


def test_every_setting_of_the_universe_is_part_of_the_definition() -> None:
    universes: list[dict[str, Any]] = [
        {"top": 5},
        {"top": 6},
        {"top": 5, "of": "sp500"},
        {"top": 5, "of": "members.csv"},
        {"top": 5, "rebalance": "monthly"},
        {"top": 5, "min_price": 5},
        {"top": 5, "min_dollar_volume": 5},
        {"top": 5, "of": "sp500", "industry": "Banks"},
    ]
    forms: list[StrategyForm] = [strategy_form(prices=FILES, universe=universe) for universe in universes]
    assert len({form.definition("scaled_features") for form in forms}) == len(universes)


def test_files_to_choose_from_are_missed_too(home: Path) -> None:
    form = strategy_form(prices=FILES, universe={"top": 5, "of": "members.csv"})
    assert form.missing_files() == [home / "p.csv", home / "members.csv"]
