"""Accounts are set up by administrators, live in two steps, and every change is kept."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading import account_policy, ledger
from stockpicker_dagster.trading.account_policy import AccountInUse, Setup
from stockpicker_dagster.trading.people import directory
from stockpicker_dagster.trading.people.directory import NotAllowed
from stockpicker_dagster.trading.proposal import from_bytes
from stockpicker_dagster_tests.trading.conftest import EVENING, TradingDesk
from stockpicker_dagster_tests.trading.people.conftest import NOON, PASSWORD, cheap_hashes

__all__ = ["cheap_hashes"]

LIVE = Setup(broker="alpaca", mode="live", base_url="https://api.alpaca.markets", broker_account="A1")
CASH = Decimal(50_000)


@pytest.fixture
def people(ledger_engine: Any) -> Any:
    directory.add_person(ledger_engine, "ada", "administrator", PASSWORD, "os:root", NOON)
    directory.add_person(ledger_engine, "app", "approver", PASSWORD, "ada", NOON)
    return ledger_engine


def test_without_people_there_are_paper_accounts_only(ledger_engine: Any) -> None:
    opened = account_policy.open_account(ledger_engine, "small", Setup(approvals_needed=2), CASH, "os:me", EVENING)
    assert (opened.mode, opened.cash, opened.approvals_needed) == ("paper", CASH, 2)
    with pytest.raises(NotAllowed, match="nobody has been added"):
        account_policy.open_account(ledger_engine, "live", LIVE, CASH, "os:me", EVENING)


@pytest.mark.parametrize("who", ["app", "os:me"])
def test_with_people_only_administrators_set_accounts_up(people: Any, who: str) -> None:
    with pytest.raises((NotAllowed, InvalidInput)):
        account_policy.open_account(people, "small", Setup(), CASH, who, EVENING)
    account_policy.open_account(people, "live", LIVE, CASH, "ada", EVENING)
    for change in (
        lambda: account_policy.change_account(people, "live", Setup(approvals_needed=1), who, EVENING),
        lambda: account_policy.enable_live(people, "live", "https://api.alpaca.markets", "A1", who, EVENING),
        lambda: account_policy.disable_live(people, "live", who, EVENING),
    ):
        with pytest.raises((NotAllowed, InvalidInput)):
            change()


def test_live_is_switched_on_by_naming_address_and_number_once_more(people: Any) -> None:
    opened = account_policy.open_account(people, "live", LIVE, CASH, "ada", EVENING)
    assert not opened.live_enabled
    for url, number in (("https://api.alpaca.markets", "A2"), ("https://paper-api.alpaca.markets", "A1")):
        with pytest.raises(InvalidInput, match="nothing was switched on"):
            account_policy.enable_live(people, "live", url, number, "ada", EVENING)
    assert account_policy.enable_live(people, "live", "https://api.alpaca.markets", "A1", "ada", EVENING).live_enabled
    moved = account_policy.change_account(people, "live", Setup(broker_account="A2"), "ada", EVENING)
    assert not moved.live_enabled
    kept = account_policy.account_changes(people, "live")
    assert [settings["live_enabled"] for _, _, settings in kept] == [False, True, False]
    assert {who for _, who, _ in kept} == {"ada"}


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        (Setup(broker="alpaca", base_url="https://api.alpaca.markets"), "account number"),
        (Setup(broker="alpaca", base_url="http://api.alpaca.markets", broker_account="A1"), "not encrypted"),
        (Setup(broker="alpaca", base_url="api.alpaca.markets", broker_account="A1"), "no address"),
        (Setup(broker="alpaca", base_url="https://me:pw@host", broker_account="A1"), "no address"),
        (Setup(broker="paper", mode="live"), "never live"),
    ],
)
def test_settings_that_do_not_go_together_leave_nothing_behind(people: Any, setup: Setup, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        account_policy.open_account(people, "odd", setup, CASH, "ada", EVENING)
    with pytest.raises(InvalidInput, match="no account 'odd'"):
        account_policy.change_account(people, "odd", Setup(), "ada", EVENING)


@pytest.mark.parametrize(
    "wrong",
    [{"broker": "robinhood"}, {"mode": "demo"}, {"approvals_needed": 0}, {"limits": {"leverage": Decimal(2)}}],
)
def test_what_cannot_be_set_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="allowed"):
        Setup(**wrong)


def test_an_account_in_use_is_not_moved(ledger_engine: Any) -> None:
    desk = TradingDesk(ledger_engine)
    desk.proposed({"AAA": 0.5, "BBB": -0.5}, {"AAA": 50.0, "BBB": 20.0})
    ticket = Setup(broker="ticket", base_url=account_policy.TICKET_URL, broker_account="me")
    with pytest.raises(AccountInUse, match="is not ended"):
        account_policy.change_account(ledger_engine, "paper", ticket, "os:me", EVENING)


def test_lots_are_traded_as_they_were_set(ledger_engine: Any) -> None:
    setup = Setup(lot=Decimal(10), lots={"AAA": Decimal(100)})
    account_policy.open_account(ledger_engine, "round", setup, CASH, "os:me", EVENING)
    changed = account_policy.change_account(ledger_engine, "round", Setup(lots={"CCC": Decimal(1)}), "os:me", EVENING)
    assert (changed.policy.lot, changed.policy.lots) == (10, {"AAA": 100, "CCC": 1})
    assert "100" in account_policy.account_changes(ledger_engine, "round")[-1][2]["policy"]
    desk = TradingDesk(ledger_engine, account="round")
    targets, prices = {"AAA": 0.2, "BBB": -0.2, "CCC": 0.1}, {"AAA": 4.7, "BBB": 2.3, "CCC": 1.1}
    outcome = desk.propose(targets, prices)
    assert outcome.document is not None, outcome.reason
    lots = {"AAA": 100, "BBB": 10, "CCC": 1}
    assert {o.symbol for o in outcome.document.orders} == lots.keys()
    assert all(o.quantity % lots[o.symbol] == 0 for o in outcome.document.orders)
    assert from_bytes(outcome.document.to_bytes()) == outcome.document
    with pytest.raises(InvalidInput, match="the lot of every name is 0 shares"):
        account_policy.change_account(ledger_engine, "round", Setup(lot=Decimal(0)), "os:me", EVENING)
    with pytest.raises(InvalidInput, match=r"the lot of AAA is 0\.5 shares; allowed: whole shares"):
        account_policy.change_account(ledger_engine, "round", Setup(lots={"AAA": Decimal("0.5")}), "os:me", EVENING)


def test_limits_and_strategies_are_what_was_set(ledger_engine: Any) -> None:
    limits: dict[str, Any] = {"gross": Decimal("1.5"), "restricted": ["ZZZ"]}
    setup = Setup(limits=limits, allowed_strategies=("value",), four_eyes=True)
    opened = account_policy.open_account(ledger_engine, "small", setup, CASH, "os:me", EVENING)
    assert (opened.limits.gross, opened.limits.restricted, opened.four_eyes) == (Decimal("1.5"), ("ZZZ",), True)
    desk = TradingDesk(ledger_engine, account="small")
    refused = desk.propose({"AAA": 0.1}, {"AAA": 50.0})
    assert refused.id is None
    assert "not for strategy 'momentum'; allowed there: value" in refused.reason
    account_policy.change_account(ledger_engine, "small", Setup(any_strategy=True), "os:me", EVENING)
    assert desk.propose({"AAA": 0.1}, {"AAA": 50.0}).id is not None


def test_one_account_at_a_broker_is_one_account_here(people: Any) -> None:
    account_policy.open_account(people, "live", LIVE, CASH, "ada", EVENING)
    with pytest.raises(InvalidInput, match="is that of account 'live' already"):
        account_policy.open_account(people, "again", LIVE, CASH, "ada", EVENING)
    account_policy.open_account(people, "other", replace(LIVE, broker_account="A2"), CASH, "ada", EVENING)
    with pytest.raises(InvalidInput, match="trade it there"):
        account_policy.change_account(people, "other", Setup(broker_account="A1"), "ada", EVENING)
    with people.connect() as connection:
        assert connection.execute(ledger.accounts.select()).all()[-1].id == "other"
