"""The commands that say why something is held, and what it cost."""

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import update

from stockpicker_dagster.cli import main
from stockpicker_dagster.components import origins
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.shortfall import DayPrices
from stockpicker_dagster_tests.trading.conftest import EVENING, TradingDesk

PRICES = {"AAA": 50.0, "BBB": 20.0}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TradingDesk:
    """A desk on the deployment's own ledger; its strategy is not in the project."""
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(Deployment, "now", lambda self: EVENING)
    return TradingDesk(Deployment().database)


def run(*arguments: str, fails: bool = False) -> str:
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code != 0) == fails, result.output
    return result.output if fails else result.stdout


def executed(desk: TradingDesk) -> str:
    proposal = desk.proposed({"AAA": 0.5, "BBB": -0.5}, PRICES)
    desk.approve(proposal)
    assert desk.execute(proposal).status == "finished"
    return proposal


def test_an_audit_names_every_step_from_the_fill_to_the_data(desk: TradingDesk) -> None:
    proposal = executed(desk)
    text = run("audit", "AAA")
    steps = (
        "fill 1 on",
        "order sp-",
        f"proposal {proposal} (executed)",
        "approve by os:approver",
        "model model-1, data",
    )
    places = [text.index(step) for step in steps]
    assert places == sorted(places)
    assert "strategy momentum is not in the project any more" in text
    document = json.loads(run("audit", "AAA", "--json"))
    [found] = document["proposals"]
    assert (document["symbol"], found["id"], found["target"]) == ("AAA", proposal, "0.5")
    assert "nothing was ever traded" in run("audit", "CCC")


def test_an_audit_fails_where_the_books_do_not_explain_the_position(desk: TradingDesk) -> None:
    executed(desk)
    with transaction(desk.engine) as connection:
        connection.execute(update(ledger.positions).values(quantity=Decimal(1)))
    assert "do not add up" in run("audit", "AAA", fails=True)
    assert "known accounts: paper" in run("audit", "AAA", "--account", "other", fails=True)


def test_a_shortfall_is_told_once_its_session_is_stored(desk: TradingDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: dict[str, Any] = {"prices": None}
    asked: list[date] = []

    def day_prices(_lake: object, _form: object, session: date, _symbols: object) -> object:
        asked.append(session)
        return stored["prices"]

    monkeypatch.setattr(origins, "day_prices", day_prices)
    monkeypatch.setattr("stockpicker_dagster.runs.find_strategy", lambda _name: None)
    proposal = desk.proposed({"AAA": 0.5, "BBB": -0.5}, PRICES)
    assert "is open" in run("shortfall", proposal, fails=True)
    desk.approve(proposal)
    desk.execute(proposal)
    assert "are not stored yet" in run("shortfall", proposal, fails=True)
    stored["prices"] = {"AAA": DayPrices(Decimal(50), Decimal(51)), "BBB": DayPrices(Decimal(20), None)}
    text = run("shortfall", proposal)
    assert f"proposal {proposal} of momentum" in text
    assert "AAA      buy   980 of 980 at 50.0125: decided at 50.0000, open 50.0000" in text
    document = json.loads(run("shortfall", proposal, "--json"))
    assert Decimal(document["trading"]) == Decimal("980") * Decimal("0.0125") + Decimal(2450) * Decimal("0.005")
    assert set(asked) == {date(2024, 3, 5)}
