"""The doctor: each thing that is wrong is found, named, and told with what puts it right."""

import os
import re
import shlex
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from click.testing import CliRunner
from sqlalchemy import update

from stockpicker_dagster import runs
from stockpicker_dagster.cli import main
from stockpicker_dagster.compute import spark_session
from stockpicker_dagster.health import Finding, findings
from stockpicker_dagster.home import Home, prepare_home
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.runs import Span, span_to_run
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.symbol_sets import store_symbol_set
from stockpicker_dagster.strategy_form import COMPONENT_TYPE
from stockpicker_dagster.trading import accounts, ledger
from stockpicker_dagster_tests.trading.brokers.alpaca_server import KEY, SECRET, AlpacaServer

START = date(2023, 1, 3)
DAYS = trading_calendar("XNYS").sessions(START, date(2023, 1, 13))
NOW = datetime(2023, 1, 15, 12, tzinfo=UTC)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A sound state folder, and a project without any strategy yet."""
    for name in ("DAGSTER_HOME", "NUMBA_CACHE_DIR"):
        monkeypatch.setenv(name, os.environ.get(name, "before"))
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(runs, "STRATEGIES", tmp_path / "strategies")
    return prepare_home(announce=False)


def write_strategy(name: str, prices: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A strategy on files of the state folder, by default of stocks A and B."""
    attributes = {
        "owner": "research",
        "universe": {"symbols": ["A", "B"]},
        "prices": {"source": "files", "path": "p.csv", "basis": "as_traded", "start": str(START), **(prices or {})},
        "periods": {"train_years": 1, "validation_years": 1, "retrain": "yearly"},
    }
    path = runs.STRATEGIES / name / "defs.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"type": COMPONENT_TYPE, "attributes": attributes | changes}))
    return path


def write_prices(place: Home, name: str = "p.csv") -> None:
    rows = [(symbol, day, *[10.0] * 6) for day in DAYS for symbol in ("A", "B", "C")]
    columns = ["symbol", "date", "open", "high", "low", "close", "adj_close", "volume"]
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(place.root / name)


def store(symbols: list[str], days: list[date], table: str = "files/prices") -> None:
    """Days that were asked for `symbols`."""
    lake = Deployment().lake
    note = store_symbol_set(lake, table, symbols)
    frame = pl.DataFrame(schema={"symbol": pl.String(), "date": pl.Date()})
    year = trading_calendar("XNYS").sessions(date(2023, 1, 1), date(2023, 12, 31))
    lake.write_days(table, frame, days, lambda _: year, note)


def found(place: Home, what: str) -> Finding:
    """The one finding about `what`."""
    [finding] = [each for each in findings(place) if each.what == what]
    return finding


def test_everything_sound_is_healthy_and_looked_at_in_the_order_of_repair(place: Home) -> None:
    write_strategy("mine")
    write_prices(place)
    store(["A", "B"], DAYS)
    accounts.ensure_paper_account(Deployment().database, "paper", NOW)
    whole = list(findings(place))
    assert [each.what for each in whole] == ["state folder", "versions", "mine", "database", "account paper"]
    assert all(each.healthy for each in whole)
    assert found(place, "mine").sentence == "prices stored for 9 days (2023-01-03 to 2023-01-13)"


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o500])
def test_a_state_folder_that_is_not_its_owners_alone_is_found(place: Home, mode: int) -> None:
    assert found(place, "state folder").healthy
    place.root.chmod(mode)
    finding = found(place, "state folder")
    place.root.chmod(0o700)
    assert not finding.healthy
    assert finding.sentence == f"{place.root}, mode {mode:o}; chmod 700 it"


def test_a_broken_strategy_is_found_with_file_and_line_and_the_rest_is_still_looked_at(place: Home) -> None:
    write_strategy("mine")
    path = write_strategy("yours", owner="not allowed")
    line = next(number for number, row in enumerate(path.read_text().splitlines(), 1) if "owner" in row)
    finding = found(place, "strategies")
    assert not finding.healthy
    assert f"{path}:{line}: " in finding.sentence
    assert finding.sentence.endswith("; correct the lines named")
    assert found(place, "database").healthy


def test_files_that_are_not_there_are_named_until_they_are(place: Home) -> None:
    write_strategy("mine", universe={"file": "members.csv"})
    finding = found(place, "mine")
    assert not finding.healthy
    assert f"{place.root / 'p.csv'}, {place.root / 'members.csv'}" in finding.sentence
    write_prices(place)
    (place.root / "members.csv").write_text("ticker\nA\nB\n")
    assert found(place, "mine") == Finding("mine", True, "nothing is stored yet; stockpicker run mine")


def test_a_universe_that_cannot_be_read_is_a_finding(place: Home) -> None:
    write_strategy("mine", universe={"file": "members.csv"})
    write_prices(place)
    (place.root / "members.csv").write_text("colour\nred\n")
    store(["A"], DAYS)
    finding = found(place, "mine")
    assert not finding.healthy
    assert "members.csv" in finding.sentence


def test_days_that_predate_a_symbol_are_found_with_the_command_that_repairs_them(
    place: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_strategy("mine")
    write_prices(place)
    store(["A"], DAYS[:5])
    store(["A", "B"], DAYS[5:])
    finding = found(place, "mine")
    assert not finding.healthy
    what, command = finding.sentence.split("; ")
    assert what.startswith(f"5 days ({', '.join(map(str, DAYS[:5]))}) of files/prices lack symbols")

    program, subcommand, *arguments = shlex.split(command)
    assert (program, subcommand) == ("stockpicker", "run")
    [run] = [each for name, each in main.commands.items() if name == subcommand]
    asked = run.make_context("run", arguments).params
    monkeypatch.setattr(Deployment, "now", lambda _: NOW)
    form = runs.find_strategy(asked["strategy"])
    span = span_to_run(asked["strategy"], form, Deployment(), asked["first"], asked["last"])
    assert span == Span(DAYS[0], DAYS[4])
    store(["A", "B"], DAYS[:5])
    assert found(place, "mine").healthy


def test_a_symbol_of_one_strategy_makes_the_days_of_all_on_its_source_incomplete(place: Home) -> None:
    write_strategy("mine")
    write_strategy("apart", prices={"name": "apart"})
    write_prices(place)
    for table in ("files/prices", "apart/prices"):
        store(["A", "B"], DAYS, table)
    write_strategy("yours", universe={"symbols": ["A", "C"]})
    health = {each.what: each.healthy for each in findings(place) if each.what in ("mine", "yours", "apart")}
    assert health == {"apart": True, "mine": False, "yours": False}


def test_a_halted_account_is_found_with_who_and_why_until_it_is_resumed(place: Home) -> None:
    database = Deployment().database
    for name in ("paper", "other"):
        accounts.ensure_paper_account(database, name, NOW)
    accounts.halt(database, "paper", "os:risk", "fills look odd", NOW)
    finding = found(place, "account paper")
    assert not finding.healthy
    assert "halted by os:risk at 2023-01-15 12:00:00 UTC: fills look odd" in finding.sentence
    assert found(place, "account other") == Finding("account other", True, "not halted")
    accounts.resume(database, "paper", "os:risk", NOW)
    assert found(place, "account paper").healthy
    accounts.halt(database, None, "os:risk", "a drill", NOW)
    assert not found(place, "account other").healthy


def test_a_broker_is_asked_whether_it_answers_and_is_sent_nothing(place: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Deployment().database
    accounts.ensure_paper_account(database, "street", NOW)
    assert [each.what for each in findings(place) if "street" in each.what] == ["account street"]
    with AlpacaServer() as server:
        server.exchange.now = Deployment().now()
        at_alpaca = update(ledger.accounts).values(broker="alpaca", base_url=server.url)
        with database.begin() as connection:
            connection.execute(at_alpaca)
        lacking = found(place, "broker of street")
        assert not lacking.healthy
        assert "account 'street' needs APCA_API_KEY_ID; set it" in lacking.sentence

        monkeypatch.setenv("APCA_API_KEY_ID", KEY)
        monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)
        fine = found(place, "broker of street")
        assert fine.healthy
        assert re.fullmatch(r"alpaca answers: .* UTC; \S+, cash 1000000 USD; 0 held", fine.sentence), fine.sentence
        assert {method for method, *_ in server.received} == {"GET"}

        server.exchange.now -= timedelta(seconds=10)
        late = found(place, "broker of street")
        assert not late.healthy
        assert "it is not so that it tells the time (it is " in late.sentence
        assert "set this machine's clock" in late.sentence


def test_where_the_trader_alone_has_the_credentials_of_a_live_account_nobody_else_needs_them(place: Home) -> None:
    database = Deployment().database
    accounts.ensure_paper_account(database, "street", NOW)
    with database.begin() as connection:
        connection.execute(update(ledger.accounts).values(broker="alpaca", mode="live"))
    finding = found(place, "broker of street")
    assert finding.healthy
    assert "was not asked: only where its trader runs is it reached" in finding.sentence


@pytest.mark.parametrize("kind", ["no folder", "no database", "unknown kind", "nobody answers"])
def test_a_database_that_cannot_be_opened_is_a_finding(
    place: Home, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").write_text("this is no database, but long enough to look like a file of one" * 20)
    urls = {
        "no folder": f"sqlite:///{tmp_path}/nowhere/ledger.sqlite",
        "no database": f"sqlite:///{tmp_path}/text",
        "unknown kind": "mysql://there/ledger",
        "nobody answers": "postgresql://127.0.0.1:1/ledger",
    }
    monkeypatch.setenv("STOCKPICKER_DATABASE_URL", urls[kind])
    finding = found(place, "database")
    assert not finding.healthy
    assert finding.sentence.startswith("cannot be opened (")
    assert "STOCKPICKER_DATABASE_URL" in finding.sentence


def test_the_doctor_exits_with_1_for_a_single_problem_and_0_without(place: Home) -> None:
    write_strategy("mine")
    broken = CliRunner().invoke(main, ["doctor"])
    assert broken.exit_code == 1
    assert [line[:5] for line in broken.stdout.splitlines()] == ["ok   ", "ok   ", "FAIL ", "ok   "]
    write_prices(place)
    sound = CliRunner().invoke(main, ["doctor"])
    assert sound.exit_code == 0
    assert all(line.startswith("ok   ") for line in sound.stdout.splitlines())


def test_features_of_ones_own_are_tried_and_what_looks_ahead_is_found(place: Home) -> None:
    module = place.root / "features" / "mine.py"
    module.parent.mkdir()
    head = "from stockpicker_dagster.research.features import feature\n\n\n"
    head += '@feature(lookback=1, inputs=["close"])\ndef mine(panel):\n    """Nothing much."""\n'
    module.write_text(head + "    return panel.close / panel.close[-1]\n\n\nFEATURES = (mine,)\n")
    write_prices(place)
    write_strategy("own", features={"module": "mine"})
    found = [each for each in findings(place) if "feature module" in each.sentence]
    assert [each.healthy for each in found] == [False]
    assert "feature module 'mine': feature 'mine' looks ahead" in found[0].sentence
    module.write_text(head + "    return panel.close / panel.close\n\n\nFEATURES = (mine,)\n")
    found = [each for each in findings(place) if "feature module" in each.sentence]
    assert found == [Finding("own", True, "feature module 'mine': none of its features looks ahead")]


def test_a_strategy_that_asks_for_spark_where_it_is_not_is_found(place: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    write_prices(place)
    write_strategy("on_spark", features={"compute": "spark"})
    for there in (True, False):
        monkeypatch.setattr(spark_session, "find_spec", lambda name, there=there: object() if there else None)
        monkeypatch.setattr(spark_session, "_java", lambda: "/usr/bin/java")
        wrong = [each.sentence for each in findings(place) if not each.healthy]
        assert [sentence.split(";")[0] for sentence in wrong] == (
            [] if there else ["features: {compute: spark} needs the extra `spark`, which is not installed"]
        )
