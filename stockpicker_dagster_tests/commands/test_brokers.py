"""The commands about brokers: the list, the verification, and the exchange of orders with a person."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import update

from stockpicker_dagster.cli import main
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.accounts import ensure_paper_account
from stockpicker_dagster.trading.brokers import OrderRequest
from stockpicker_dagster.trading.brokers.ticket import TicketBroker
from stockpicker_dagster_tests.trading.brokers.alpaca_server import KEY, SECRET, AlpacaServer
from stockpicker_dagster_tests.trading.brokers.exchange import EVENING, TUESDAY


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(Deployment, "now", lambda self: EVENING)
    made = Deployment()
    ensure_paper_account(made.database, "us", EVENING)
    return made


def run(*arguments: str, fails: bool = False) -> str:
    result = CliRunner().invoke(main, ["broker", *arguments])
    assert (result.exit_code != 0) == fails, result.output
    return result.output


def move(deployment: Deployment, broker: str, url: str) -> None:
    with deployment.database.begin() as connection:
        connection.execute(
            update(ledger.accounts).where(ledger.accounts.c.id == "us").values(broker=broker, base_url=url)
        )


def test_the_list_says_what_each_can_do_and_how_that_is_known(deployment: Deployment) -> None:
    text = run("list")
    assert "alpaca: Alpaca\n" in text
    assert "cut-offs: cls 10 minutes before the close, opg 2 minutes before the open" in text
    assert text.count("not yet against the live service") == 2


def test_verifying_says_what_was_kept_and_fails_where_something_was_not(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with AlpacaServer() as server:
        server.exchange.instant = False
        move(deployment, "alpaca", server.url)
        assert "needs APCA_API_KEY_ID" in run("verify", "us", fails=True)
        for name, value in (("APCA_API_KEY_ID", KEY), ("APCA_API_SECRET_KEY", SECRET)):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("STOCKPICKER_ALPACA_DATA_URL", server.url)
        server.exchange.now = datetime.now(UTC)
        monkeypatch.setattr(Deployment, "now", lambda self: server.exchange.now)
        text = run("verify", "us", "--symbol", "AAA")
        assert text.count("kept  ") == 15
        assert SECRET not in text
        server.account_fields["trading_blocked"] = True
        text = run("verify", "us", "--symbol", "AAA", fails=True)
        assert "BROKEN it tells the account, and orders may be sent: trading is blocked at Alpaca" in text
        assert "1 promises were not kept" in text


def test_orders_go_out_to_a_person_and_come_back(deployment: Deployment, tmp_path: Path) -> None:
    assert "only orders of `ticket` accounts" in run("export", "us", fails=True)
    move(deployment, "ticket", "ticket://person")
    holdings = tmp_path / "holdings.csv"
    holdings.write_text("symbol,quantity\nBBB,3\n")
    assert "holds 1 names and 5000 of cash" in run("state", "us", str(holdings), "--cash", "5000")
    assert "is no amount" in run("state", "us", str(holdings), "--cash", "plenty", fails=True)
    broker = TicketBroker(deployment.database, "us", now=lambda: EVENING)
    broker.submit(
        OrderRequest("sp-1", "AAA", "buy", Decimal(4), "openings", "market", "day", None, None, TUESDAY, EVENING)
    )
    run("export", "us", "--folder", str(tmp_path))
    assert "sp-1,place" in (tmp_path / "us-orders.csv").read_text()
    assert "<title>Orders for us</title>" in (tmp_path / "us-checklist.html").read_text()
    fills = tmp_path / "fills.csv"
    fills.write_text(f"order,quantity,price,fees,time\nsp-1,4,50,1,{EVENING.isoformat()}\n")
    assert "1 fills taken, 0 known already, 0 orders ended\n" in run("report", "us", str(fills))
    assert "0 fills taken, 1 known already, 0 orders ended\n" in run("report", "us", str(fills))
    fills.write_bytes(b"\xff\xfe\x00")
    assert "save it as CSV in UTF-8" in run("report", "us", str(fills), fails=True)
    assert "cannot be written" in run("export", "us", "--folder", str(tmp_path / "nowhere"), fails=True)
