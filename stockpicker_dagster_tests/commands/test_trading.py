"""Books are compared and accepted, accounts flattened, and traders started, from a terminal."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner

from stockpicker_dagster.cli import main
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.trading import ledger, reconciliation
from stockpicker_dagster.trading.account_policy import Setup, open_account
from stockpicker_dagster.trading.people import directory
from stockpicker_dagster.trading.trader_reports import trader_of
from stockpicker_dagster_tests.trading.brokers.alpaca_server import KEY, NUMBER, SECRET, AlpacaServer
from stockpicker_dagster_tests.trading.brokers.exchange import EVENING


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(Deployment, "now", lambda self: EVENING)
    monkeypatch.setattr(reconciliation, "PAUSES", (0.0,))
    for name, value in (("APCA_API_KEY_ID", KEY), ("APCA_API_SECRET_KEY", SECRET)):
        monkeypatch.setenv(name, value)
    return Deployment()


def run(*arguments: str, fails: bool = False) -> str:
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code != 0) == fails, result.output
    return result.output


def account(deployment: Deployment, server: AlpacaServer) -> None:
    setup = Setup(broker="alpaca", base_url=server.url, broker_account=NUMBER)
    open_account(deployment.database, "us", setup, Decimal(1), "os:me", EVENING)
    server.exchange.positions = {"AAA": Decimal(10)}


def test_books_are_compared_accepted_and_then_agree(deployment: Deployment) -> None:
    with AlpacaServer() as server:
        account(deployment, server)
        text = run("reconcile", "us")
        assert "entered: AAA is 10 shares (opening)" in text
        assert "us: the books agree" in text
        server.exchange.positions["AAA"] += 1
        assert "us: AAA is 10 shares in the ledger and 11 by broker alpaca" in run("reconcile", "us", fails=True)
        assert "needs a reason" in run("reconcile", "us", "--accept", " ", fails=True)
        assert "AAA is 11 shares (accepted by os:" in run("reconcile", "us", "--accept", "a gift")
        assert "us: the books agree" in run("reconcile", "us")


def test_anybody_halts_and_an_approver_lifts_it(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, role in (("ada", "administrator"), ("rob", "researcher"), ("ann", "approver")):
        directory.add_person(deployment.database, name, role, "a long password", "ada", EVENING)
    monkeypatch.setattr("stockpicker_dagster.commands.trading.sign_in", lambda _, name: name)
    run("halt", "--reason", "a drill")
    assert "rob is researcher; this needs the role approver" in run("resume", "--as", "rob", fails=True)
    assert "1 halts lifted" in run("resume", "--as", "ann")


def test_a_flattening_is_proposed_with_what_to_type_next(deployment: Deployment) -> None:
    with AlpacaServer() as server:
        account(deployment, server)
        text = run("flatten", "us", "--at", "close")
        assert "sell           10 AAA" in text
        assert "closes 1 positions of us on 2024-03-05" in text
        with deployment.database.connect() as connection:
            [proposal] = connection.execute(ledger.proposals.select()).all()
        assert f"`stockpicker approve {proposal.id}`" in text
        said = run("approve", proposal.id)
        assert f"{proposal.id}: approved" in said
        assert "the trader of account us executes it" in said
        assert "no account 'them'" in run("flatten", "them", fails=True)


def test_a_trader_is_a_process_that_loads_no_dagster_and_ends_when_asked(deployment: Deployment) -> None:
    with AlpacaServer() as server:
        account(deployment, server)
        server.exchange.now = datetime.now(UTC)
        code = (
            "import sys, atexit\n"
            "atexit.register(lambda: print('dagster' in sys.modules, flush=True))\n"
            "from stockpicker_dagster.cli import main\n"
            "main(['trader', 'us'])"
        )
        serving = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "STOCKPICKER_ALPACA_DATA_URL": server.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert serving.stderr is not None
            seen = ""
            while "waits for an approved proposal" not in seen:
                line = serving.stderr.readline()
                assert line, seen
                seen += line
            # Another one for the same account is sent away by name.
            assert "is being traded by" in run("trader", "us", fails=True)
            until = time.monotonic() + 20
            while "waits for an approved proposal" not in run("account", "list"):
                assert time.monotonic() < until
        finally:
            serving.send_signal(signal.SIGTERM)
            out, rest = serving.communicate(timeout=60)
        assert (serving.returncode, out) == (0, "False\n"), rest
        assert KEY not in seen + rest
        said = trader_of(deployment.database, "us")
        assert said is not None
        assert said.state == "stopped"
        assert datetime.now(UTC) - said.seen_at < timedelta(minutes=1)


def test_an_account_on_paper_needs_no_trader(deployment: Deployment) -> None:
    run("account", "add", "paper")
    assert "needs no trader" in run("trader", "paper", fails=True)
