"""One process sends for an account, and what was thought dead commits nothing more."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, update

from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger, locks
from stockpicker_dagster.trading.accounts import ensure_paper_account
from stockpicker_dagster.trading.brokers import OrderRequest
from stockpicker_dagster.trading.brokers.paper import PaperBroker
from stockpicker_dagster.trading.execution import execute
from stockpicker_dagster.trading.locks import Fenced, LockHeld
from stockpicker_dagster.trading.proposal import load
from stockpicker_dagster_tests.trading.conftest import EVENING

FIRST = {"AAA": 0.5, "BBB": -0.5}
PRICES = {"AAA": 50.0, "BBB": 20.0}


def held_by(engine: Engine, owner: str, ago: timedelta = timedelta()) -> None:
    with transaction(engine) as connection:
        connection.execute(update(ledger.execution_locks).values(owner=owner, renewed_at=locks._now() - ago))


def test_only_one_of_many_takes_the_lock(any_engine: Engine) -> None:
    ensure_paper_account(any_engine, "paper", EVENING)

    def take(_: int) -> int:
        try:
            return locks.take(any_engine, "paper").fencing
        except LockHeld:
            return 0

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(take, range(16)))
    assert sorted(taken) == [0] * 15 + [1]


def test_the_number_rises_with_every_change_of_hands(trading_desk: Any) -> None:
    numbers = []
    for _ in range(3):
        lock = locks.take(trading_desk.engine, "paper")
        numbers.append(lock.fencing)
        locks.release(trading_desk.engine, lock)
    assert numbers == [1, 2, 3]


def test_a_lock_is_taken_over_from_the_dead_at_once_and_from_the_silent_later(trading_desk: Any) -> None:
    engine = trading_desk.engine
    locks.take(engine, "paper")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    import socket

    held_by(engine, f"{socket.gethostname()}:{dead.pid}:abc")
    assert locks.take(engine, "paper").fencing == 2
    held_by(engine, f"elsewhere:{os.getpid()}:abc")
    with pytest.raises(LockHeld, match="elsewhere"):
        locks.take(engine, "paper")
    held_by(engine, f"elsewhere:{os.getpid()}:abc", ago=locks.LEASE + timedelta(seconds=1))
    assert locks.take(engine, "paper").fencing == 3


def test_who_was_overtaken_does_not_give_the_other_s_lock_away(trading_desk: Any) -> None:
    engine = trading_desk.engine
    stale = locks.take(engine, "paper")
    held_by(engine, "elsewhere:1:abc", ago=timedelta(minutes=1))
    locks.take(engine, "paper")
    locks.release(engine, stale)
    with pytest.raises(LockHeld):
        locks.take(engine, "paper")


def test_two_traders_at_once_send_every_order_once(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(FIRST, PRICES)
    trading_desk.approve(proposal)
    lock = locks.take(trading_desk.engine, "paper")
    with pytest.raises(LockHeld):
        trading_desk.execute(proposal)
    assert trading_desk.broker().open_orders() == []
    locks.release(trading_desk.engine, lock)
    assert trading_desk.execute(proposal).status == "finished"


@pytest.mark.parametrize("step", ["before_intent", "after_intent", "after_submit", "before_fill", "before_end"])
def test_a_stale_number_commits_nothing_more(trading_desk: Any, step: str) -> None:
    """The first process stalls at `step`, a second one takes over and finishes, then the first wakes up."""
    proposal = trading_desk.proposed(FIRST, PRICES)
    trading_desk.approve(proposal)
    finished: list[str] = []

    def stall(reached: str) -> None:
        if reached == step and not finished:
            finished.append("")
            held_by(trading_desk.engine, "elsewhere:1:abc", ago=timedelta(minutes=1))
            finished[0] = trading_desk.execute(proposal).status

    with pytest.raises(Fenced, match="taken over"):
        trading_desk.execute(proposal, checkpoint=stall)
    assert finished == ["finished"]
    assert trading_desk.broker().positions() == {"AAA": 980, "BBB": -2450}
    with trading_desk.engine.connect() as connection:
        sent = connection.execute(ledger.paper_orders.select()).all()
        intents = connection.execute(ledger.order_intents.select()).all()
    assert len(sent) == len(intents) == 2
    assert trading_desk.execute(proposal).status == "finished"


def test_a_stale_number_claims_nothing(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(FIRST, PRICES)
    trading_desk.approve(proposal)
    stale = locks.take(trading_desk.engine, "paper")
    held_by(trading_desk.engine, "elsewhere:1:abc", ago=timedelta(minutes=1))
    locks.take(trading_desk.engine, "paper")
    with pytest.raises(Fenced):
        execute(trading_desk.engine, proposal, trading_desk.broker(), trading_desk.market, trading_desk.now, lock=stale)
    assert load(trading_desk.engine, proposal).state == "approved"


class StallsWhileSending(PaperBroker):
    """Takes over from itself between the decision to send and the arrival at the broker."""

    def submit(self, request: OrderRequest) -> Any:
        if not hasattr(self, "stalled"):
            self.stalled = True
            self.during()  # type: ignore[attr-defined]
        return super().submit(request)


def test_an_order_in_flight_during_a_change_of_hands_arrives_once(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(FIRST, PRICES)
    trading_desk.approve(proposal)
    slow = StallsWhileSending(trading_desk.engine, "paper")

    def take_over() -> None:
        held_by(trading_desk.engine, "elsewhere:1:abc", ago=timedelta(minutes=1))
        assert trading_desk.execute(proposal).status == "finished"

    slow.during = take_over  # type: ignore[attr-defined]
    with pytest.raises(Fenced):
        execute(trading_desk.engine, proposal, slow, trading_desk.market, trading_desk.now)
    assert trading_desk.broker().positions() == {"AAA": 980, "BBB": -2450}
    assert trading_desk.broker().open_orders() == []
