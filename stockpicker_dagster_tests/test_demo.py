import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from stockpicker_dagster import runs
from stockpicker_dagster.cli import main
from stockpicker_dagster.demo import ON_YAHOO, QUICKSTART, demo_strategy
from stockpicker_dagster.market.sources.yahoo_download import URL
from stockpicker_dagster_tests.market.sources.yahoo_server import Company, yahoo_server


@pytest.fixture
def strategies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the quickstart alone, and a home that is not there yet."""
    folder = tmp_path / "defs" / "strategies"
    shutil.copytree(runs.STRATEGIES / QUICKSTART, folder / QUICKSTART)
    monkeypatch.setattr(runs, "STRATEGIES", folder)
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))
    return folder


@contextmanager
def reachable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    now = datetime.now(UTC)
    apple = Company("AAPL", {date(2024, 6, 14): (10.0, 10.0, 10.0, 10.0, 5.0)})
    with yahoo_server({"AAPL": apple}, now) as server:
        monkeypatch.setenv(URL, server.url)
        yield


def test_without_a_network_it_says_so_in_one_sentence_and_stores_nothing(
    strategies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv(URL, f"http://127.0.0.1:{closed.getsockname()[1]}")
        result = CliRunner().invoke(main, ["demo", "--source", "yahoo"])
    assert result.exit_code == 1
    [message] = result.stderr.splitlines()
    assert message.startswith("Error: Yahoo cannot be reached (")
    assert message.endswith("the one on a simulated market needs no network: stockpicker demo")
    assert not (tmp_path / "home").exists()
    assert [folder.name for folder in strategies.iterdir()] == [QUICKSTART]


def test_with_a_network_the_quickstart_is_there_on_todays_sp100(
    strategies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reachable(monkeypatch):
        assert demo_strategy("yahoo") == ON_YAHOO
    mine, quickstart = runs.find_strategy(ON_YAHOO), runs.find_strategy(QUICKSTART)
    assert (mine.universe.name, mine.prices.kind, mine.prices.start) == ("sp100", "yahoo", quickstart.prices.start)
    assert (mine.features, mine.periods, mine.backtest) == (
        quickstart.features,
        quickstart.periods,
        quickstart.backtest,
    )
    assert mine.trading.account != quickstart.trading.account


def test_what_a_person_changed_in_it_stays(strategies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with reachable(monkeypatch):
        demo_strategy("yahoo")
        path = strategies / ON_YAHOO / "defs.yaml"
        changed = path.read_text().replace("sp100", "sp500")
        path.write_text(changed)
        demo_strategy("yahoo")
    assert path.read_text() == changed


def test_the_simulated_demo_needs_no_network_and_no_other_strategy(strategies: Path) -> None:
    assert demo_strategy("simulated") == QUICKSTART
    assert [folder.name for folder in strategies.iterdir()] == [QUICKSTART]
