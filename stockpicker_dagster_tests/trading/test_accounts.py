"""Only paper accounts come about by themselves, one strategy trades in each, and a halt says who and why."""

import threading
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import accounts
from stockpicker_dagster.trading.accounts import AccountBoundElsewhere, Costs, ensure_paper_account
from stockpicker_dagster.trading.rebalance import Policy
from stockpicker_dagster.trading.risk import Limits

PRICES = {"AAA": 50.0, "BBB": 20.0}


def test_an_account_made_on_first_use_is_paper_and_keeps_its_settings(trading_desk: Any) -> None:
    limits = Limits(gross=Decimal("1.5"), restricted=("AAA", "ZZZ"))
    made = ensure_paper_account(
        trading_desk.engine,
        "second",
        trading_desk.now,
        cash=Decimal("2500.50"),
        limits=limits,
        policy=Policy(cash_buffer=Decimal("0.1")),
        costs=Costs(commission_bps=Decimal("0.5"), spread_bps=Decimal(0)),
    )
    assert (made.mode, made.broker, made.cash) == ("paper", "paper", Decimal("2500.50"))
    again = ensure_paper_account(trading_desk.engine, "second", trading_desk.now, cash=1)
    assert again == made
    assert (again.limits, again.policy.cash_buffer, again.costs.commission_bps) == (
        limits,
        Decimal("0.1"),
        Decimal("0.5"),
    )


def test_first_users_at_once_make_one_account(any_engine: Engine, trading_desk: Any) -> None:
    made: list[object] = []

    def use() -> None:
        try:
            made.append(ensure_paper_account(any_engine, "shared", trading_desk.now).cash)
        except Exception as error:
            made.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [accounts.PAPER_CASH] * 4


@pytest.mark.parametrize(("account", "cash"), [("Paper", 1), ("", 1), ("paper", 0), ("paper", Decimal("NaN"))])
def test_accounts_that_cannot_be_are_refused(ledger_engine: Engine, trading_desk: Any, account: str, cash: Any) -> None:
    with pytest.raises(InvalidInput, match=r"account"):
        ensure_paper_account(ledger_engine, account, trading_desk.now, cash=cash)


def test_an_account_trades_one_strategy_while_its_positions_are_open(trading_desk: Any) -> None:
    trading_desk.rebalance({"AAA": 0.5, "BBB": -0.5}, PRICES)
    with (
        transaction(trading_desk.engine) as connection,
        pytest.raises(AccountBoundElsewhere, match=r"'momentum'.*'reversal'.*account of its own"),
    ):
        accounts.bind_strategy(connection, "paper", "reversal")
    trading_desk.rebalance({}, PRICES)
    with transaction(trading_desk.engine) as connection:
        accounts.bind_strategy(connection, "paper", "reversal")
        assert accounts.read_account(connection, "paper").strategy == "reversal"


def test_a_halt_says_who_and_why_until_it_is_lifted(trading_desk: Any) -> None:
    engine, now = trading_desk.engine, trading_desk.now
    assert accounts.halt_in_force(engine, "paper") is None
    accounts.halt(engine, "paper", "os:risk", "fat finger", now)
    accounts.halt(engine, None, "os:boss", "outage", now)
    assert "os:boss" in str(accounts.halt_in_force(engine, "paper"))
    assert accounts.resume(engine, None, "os:boss", now) == 1
    assert "os:risk at 2024-03-05 01:15:00 UTC: fat finger" in str(accounts.halt_in_force(engine, "paper"))
    assert accounts.resume(engine, "paper", "os:risk", now) == 1
    assert not accounts.is_halted(engine, "paper")
    with pytest.raises(InvalidInput, match="nothing was resumed"):
        accounts.resume(engine, "paper", "os:risk", now)


def test_resuming_one_account_does_not_lift_a_halt_of_all(trading_desk: Any) -> None:
    accounts.halt(trading_desk.engine, None, "os:boss", "outage", trading_desk.now)
    with pytest.raises(InvalidInput, match="no halt of its own"):
        accounts.resume(trading_desk.engine, "paper", "os:risk", trading_desk.now)
    assert accounts.is_halted(trading_desk.engine, "paper")


def test_a_halt_needs_a_reason(trading_desk: Any) -> None:
    with pytest.raises(InvalidInput, match="reason"):
        accounts.halt(trading_desk.engine, None, "os:boss", " ", trading_desk.now)
